"""The OpenAI images API on the same core: POST /v1/images/generations.

Sources: OpenAI's API reference, "Create image"; vLLM-Omni's additions ``negative_prompt``,
``num_inference_steps``, ``guidance_scale`` and ``seed``.
"""

import base64
import re
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.answers import job_location, json_answer
from api.bodies import checked, read_json
from api.dependencies import State, Submitter, base_url
from api.documentation import WAITING_STATUSES, json_body, shaped_refusals
from api.error_shapes import OPENAI_PATH, OpenAIErrorAnswer
from api.state import ApiState
from api.submitting import IdempotencyHeader, pictures_of, refusals_counted
from darkroom.generation import (
    MAX_PROMPT_CHARACTERS,
    GenerationRequest,
    Guidance,
    ImageCount,
    ModelName,
    Prompt,
    Seed,
    Steps,
    Text,
)
from darkroom.imagestores.base import output_name
from darkroom.jobs import Job

router = APIRouter(tags=["openai"])
_SIZE = re.compile(r"^([1-9][0-9]{1,4})x([1-9][0-9]{1,4})$")
_IGNORED = "Accepted and ignored: our models have no such choice."


def _size(text: str) -> str:
    if text != "auto" and not _SIZE.match(text):
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as 512x512, or auto")
    return text


NegativePrompt = Annotated[Text, StringConstraints(max_length=MAX_PROMPT_CHARACTERS)]
Word = Annotated[str, StringConstraints(max_length=256)]


class ImagesRequest(BaseModel):
    """What an OpenAI client sends. What would change the picture and cannot be had is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    prompt: Prompt = Field(description="What the picture should show; 1 to 2,000 characters.")
    model: ModelName | None = Field(None, description="Catalog name; see GET /v1/models.")
    n: ImageCount | None = Field(None, description="How many pictures, 1 to 8.")
    size: Annotated[str, AfterValidator(_size)] | None = Field(
        None, description="`WIDTHxHEIGHT` in pixels, or `auto` for the model's default."
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        None, description="`url` (the default) or `b64_json`."
    )
    output_format: Literal["png"] | None = Field(None, description="Only `png`.")
    output_compression: Literal[100] | None = Field(None, description="Only 100: PNG loses none.")
    background: Literal["auto", "opaque"] | None = Field(None, description="No transparency.")
    stream: Literal[False] | None = Field(None, description="Only false.")
    partial_images: Literal[0] | None = Field(None, description="Only 0.")
    quality: Word | None = Field(None, description=_IGNORED)
    style: Word | None = Field(None, description=_IGNORED)
    moderation: Word | None = Field(None, description=_IGNORED)
    user: Word | None = Field(None, description="Accepted and ignored.")
    negative_prompt: NegativePrompt | None = Field(
        None, description="What the picture should not show; at most 2,000 characters."
    )
    num_inference_steps: Steps | None = Field(None, description="Denoising steps, 1 to 200.")
    guidance_scale: Guidance | None = Field(None, description="0 to 30.")
    seed: Seed | None = Field(None, description="Seed of the first picture; the next adds one.")


class ImageDatum(BaseModel):
    """One picture: ``url`` or ``b64_json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    b64_json: str | None = None


class ImagesAnswer(BaseModel):
    """The pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: int = Field(description="When they were finished, in seconds since 1970.")
    data: list[ImageDatum]
    output_format: Literal["png"] = "png"
    size: str = Field(description="`WIDTHxHEIGHT` in pixels.")


@router.post(
    OPENAI_PATH,
    response_model=ImagesAnswer,
    response_model_exclude_none=True,
    summary="Generate pictures as the OpenAI API does, in one request",
    openapi_extra=json_body(ImagesRequest),
    responses=shaped_refusals(OpenAIErrorAnswer, *WAITING_STATUSES),
)
async def generate(
    request: Request,
    caller: Submitter,
    state: State,
    idempotency_header: IdempotencyHeader = None,
) -> Response:
    """Admit a job, wait for it, and answer with its pictures."""
    with refusals_counted(state):
        asked = await read_json(request, state, ImagesRequest)
    job = await pictures_of(request, caller, state, _as_generation(asked), idempotency_header)
    as_bytes = asked.response_format == "b64_json"
    base = base_url(request, state)
    data = [await _datum(job, i.index, state, base, as_bytes=as_bytes) for i in job.images]
    finished = job.finished_at or job.created_at
    size = f"{job.generation.width}x{job.generation.height}"
    answered = ImagesAnswer(created=int(finished.timestamp()), data=data, size=size)
    headers = {
        "operation-location": job_location(request, state, job),
        "cache-control": "no-store",
    }
    return json_answer(answered.model_dump_json(exclude_none=True), headers=headers)


async def _as_generation(asked: ImagesRequest) -> GenerationRequest:
    sides = _SIZE.match(asked.size or "auto")
    values = {
        "prompt": asked.prompt,
        "model": asked.model,
        "num_images": asked.n or 1,
        "width": int(sides[1]) if sides else None,
        "height": int(sides[2]) if sides else None,
        "negative_prompt": asked.negative_prompt or "",
        "num_inference_steps": asked.num_inference_steps,
        "guidance_scale": asked.guidance_scale,
        "seed": asked.seed,
    }
    return checked(GenerationRequest, values)


async def _datum(job: Job, index: int, state: ApiState, base: str, *, as_bytes: bool) -> ImageDatum:
    """Return a picture; its address needs no credential where the image store makes links."""
    name = output_name(index)
    if as_bytes:
        png = await state.images.get(job.id, name)
        return ImageDatum(b64_json=base64.b64encode(png).decode())
    lifetime = timedelta(seconds=state.settings.link_seconds)
    link = await state.images.link(job.id, name, lifetime)
    return ImageDatum(url=link or f"{base}/v1/jobs/{job.id}/images/{index}")
