"""What may be asked of a model, with every limit.

`GenerationRequest` is the body that a caller sends: sparse, strict, unknown fields refused.
`Generation` is what will be run: every default filled in by admission, the seed drawn, pictures
replaced by their digests (their bytes live in the image store). The record keeps the latter.

Parameter names are those of the diffusers pipelines. The limits here bound every model; a catalog
entry can only narrow them.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from darkroom.webhooks import WebhookEvents, WebhookUrl

MAX_PROMPT_CHARACTERS = 2_000
MIN_SIDE_PIXELS = 64
MAX_SIDE_PIXELS = 2_048
SIDE_MULTIPLE = 8  # the latent grid of every supported autoencoder is 1/8 of the picture
MAX_STEPS = 200
MAX_GUIDANCE = 30.0
MAX_IMAGES = 8
MAX_SEED = 2**32 - 1  # what numpy, torch and JavaScript's integers all hold exactly
MAX_LORAS = 4
MAX_LORA_WEIGHT = 2.0
MAX_TAGS = 16
MAX_TAG_CHARACTERS = 128
MAX_DEADLINE_SECONDS = 86_400
MAX_PARTIAL_IMAGES = 3  # as in the OpenAI images API
MAX_IMAGE_BASE64_CHARACTERS = 14_000_000  # 10 MiB of picture
MAX_INPUT_PIXELS = 4_194_304  # a decoded upload: 2048 x 2048

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _no_control_characters(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not contain NUL or other control characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode without lone surrogates") from None
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[str, AfterValidator(_no_control_characters)]
Prompt = Annotated[
    Text,
    StringConstraints(min_length=1, max_length=MAX_PROMPT_CHARACTERS),
    AfterValidator(_not_blank),
]
Side = Annotated[
    int, Field(strict=True, ge=MIN_SIDE_PIXELS, le=MAX_SIDE_PIXELS, multiple_of=SIDE_MULTIPLE)
]
Steps = Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, Field(strict=True, ge=0.0, le=MAX_GUIDANCE, allow_inf_nan=False)]
ImageCount = Annotated[int, Field(strict=True, ge=1, le=MAX_IMAGES)]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
Strength = Annotated[float, Field(strict=True, gt=0.0, le=1.0, allow_inf_nan=False)]
PartialImages = Annotated[int, Field(strict=True, ge=0, le=MAX_PARTIAL_IMAGES)]
LoraWeight = Annotated[
    float, Field(strict=True, ge=-MAX_LORA_WEIGHT, le=MAX_LORA_WEIGHT, allow_inf_nan=False)
]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ClassName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]{0,63}$")]
ImageBase64 = Annotated[str, StringConstraints(max_length=MAX_IMAGE_BASE64_CHARACTERS)]
TagText = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_TAG_CHARACTERS)]
Tags = Annotated[dict[TagText, TagText], Field(max_length=MAX_TAGS)]
DeadlineSeconds = Annotated[int, Field(strict=True, ge=1, le=MAX_DEADLINE_SECONDS)]


class Lora(BaseModel):
    """One adapter of the model, by its catalog name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ModelName = Field(description="Name of the adapter in the model's catalog entry.")
    weight: LoraWeight = Field(1.0, description="How strongly the adapter acts, -2 to 2.")


Loras = Annotated[tuple[Lora, ...], Field(max_length=MAX_LORAS, strict=False)]


class GenerationRequest(BaseModel):
    """What a caller asks for. Anything left out takes the model's default from the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    model: ModelName | None = Field(None, description="Catalog name; see GET /v1/models.")
    prompt: Prompt = Field(description="What the picture should show; 1 to 2,000 characters.")
    negative_prompt: Annotated[Text, StringConstraints(max_length=MAX_PROMPT_CHARACTERS)] = Field(
        "", description="What the picture should not show; at most 2,000 characters."
    )
    width: Side | None = Field(None, description="Pixels, 64 to 2,048, a multiple of 8.")
    height: Side | None = Field(None, description="Pixels, 64 to 2,048, a multiple of 8.")
    num_inference_steps: Steps | None = Field(None, description="Denoising steps, 1 to 200.")
    guidance_scale: Guidance | None = Field(None, description="Classifier-free guidance, 0 to 30.")
    num_images: ImageCount = Field(1, description="How many pictures, 1 to 8.")
    seed: Seed | None = Field(None, description="Seed of the first picture; the next adds one.")
    scheduler: ClassName | None = Field(None, description="A diffusers scheduler class name.")
    image: ImageBase64 | None = Field(None, description="Base64 picture to start from.")
    mask_image: ImageBase64 | None = Field(None, description="Base64 mask: white is repainted.")
    strength: Strength | None = Field(None, description="How far to leave `image`; over 0 to 1.")
    loras: Loras = Field((), description="Up to 4 adapters.")
    partial_images: PartialImages = Field(
        0, description="How many previews to make of the first picture while it runs, 0 to 3."
    )
    deadline_seconds: DeadlineSeconds | None = Field(
        None, description="Fail rather than finish later than this many seconds from now."
    )
    webhook_url: WebhookUrl | None = Field(
        None, description="https address that is told when the job ends; at most 2,048 characters."
    )
    webhook_events: WebhookEvents | None = Field(
        None, description="Which ends to tell; left out means all."
    )
    tags: Tags = Field(default_factory=dict, description="Up to 16 labels of your own.")


class InputImage(BaseModel):
    """A caller's picture, by digest; the bytes are in the image store under the job's id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    width: int
    height: int


class Generation(BaseModel):
    """What will be run: nothing left to choose. Sides in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    num_images: int
    seed: int
    scheduler: str
    image: InputImage | None = None
    mask_image: InputImage | None = None
    strength: float | None = None
    loras: tuple[Lora, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture: consecutive from ``seed``, so that each can be had alone."""
        return tuple((self.seed + index) % (MAX_SEED + 1) for index in range(self.num_images))

    @property
    def kind(self) -> str:
        """``text_to_image``, ``image_to_image`` or ``inpainting``, told by the pictures given."""
        if self.mask_image is not None:
            return "inpainting"
        return "image_to_image" if self.image is not None else "text_to_image"

    def without_content(self) -> dict[str, Any]:
        """Return the parameters that may be logged or traced: no prompt text, no digests."""
        hidden = {"prompt", "negative_prompt", "image", "mask_image"}
        return self.model_dump(mode="json", exclude=hidden)

    def without_text(self) -> "Generation":
        """Return the same parameters with empty prompts, and input pictures without digests."""
        return self.model_copy(
            update={
                "prompt": "",
                "negative_prompt": "",
                "image": _without_digest(self.image),
                "mask_image": _without_digest(self.mask_image),
            }
        )


def _without_digest(picture: InputImage | None) -> InputImage | None:
    return None if picture is None else picture.model_copy(update={"sha256": ""})
