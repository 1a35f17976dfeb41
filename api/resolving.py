"""From what was asked to what will be run: defaults filled in, the model's limits applied.

Pure but for the seed. Every refusal names the field and the limit.
"""

import math
import secrets
from dataclasses import dataclass
from typing import TypeVar

from darkroom.catalog import Catalog, Model
from darkroom.errors import InvalidInput
from darkroom.generation import (
    MAX_SEED,
    MIN_SIDE_PIXELS,
    Generation,
    GenerationRequest,
)

T = TypeVar("T")

IMAGE_TO_IMAGE_STRENGTH = 0.8  # the diffusers pipelines' own default
INPAINTING_STRENGTH = 1.0


@dataclass(frozen=True)
class Sides:
    """Width and height in pixels."""

    width: int
    height: int


def resolve(request: GenerationRequest, catalog: Catalog, picture: Sides | None) -> Generation:
    """Return the generation that ``request`` means, without its pictures' digests.

    ``picture`` is the size of the input picture, if there is one: it is the default of the output's
    size. Raises `InvalidInput` or one of its kinds.
    """
    model, kind = choose_model(request, catalog)
    sides = _sides(request, model, picture)
    defaults = model.defaults
    generation = Generation(
        model=model.name,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=sides.width,
        height=sides.height,
        num_inference_steps=_given(request.num_inference_steps, defaults.num_inference_steps),
        guidance_scale=_given(request.guidance_scale, defaults.guidance_scale),
        num_images=request.num_images,
        seed=secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed,
        scheduler=request.scheduler or model.scheduler,
        strength=_strength(request, kind),
        loras=request.loras,
    )
    _check_limits(generation, model)
    return generation


def choose_model(request: GenerationRequest, catalog: Catalog) -> tuple[Model, str]:
    """Return the model, and the kind of generation that the pictures given make it.

    Raises `UnknownModel`, and `InvalidInput` for pictures that do not go together or that the model
    has no use for. Needs no picture decoded.
    """
    model = catalog.model(request.model or catalog.default_model)
    kind = _kind(request)
    _check_kind(model, kind)
    return model, kind


def _given(asked: T | None, default: T) -> T:
    return default if asked is None else asked


def _kind(request: GenerationRequest) -> str:
    if request.image is None:
        for name in ("mask_image", "strength"):
            if getattr(request, name) is not None:
                raise InvalidInput(f"{name} needs image: give both or neither", target=name)
        return "text_to_image"
    return "image_to_image" if request.mask_image is None else "inpainting"


def _check_kind(model: Model, kind: str) -> None:
    if kind in model.kinds:
        return
    able = ", ".join(model.kinds)
    target = {"image_to_image": "image", "inpainting": "mask_image"}.get(kind, "model")
    raise InvalidInput(
        f"{target}: model {model.name} cannot do {kind}; it does {able}", target=target
    )


def _strength(request: GenerationRequest, kind: str) -> float | None:
    if kind == "text_to_image":
        return None
    default = INPAINTING_STRENGTH if kind == "inpainting" else IMAGE_TO_IMAGE_STRENGTH
    return _given(request.strength, default)


def _sides(request: GenerationRequest, model: Model, picture: Sides | None) -> Sides:
    if picture is None:
        default = Sides(model.defaults.width, model.defaults.height)
    else:
        default = _scaled(picture, _scale(request, model, picture), model.side_multiple)
    return Sides(_given(request.width, default.width), _given(request.height, default.height))


def _scale(request: GenerationRequest, model: Model, picture: Sides) -> float:
    """What the picture's sides are multiplied with: the side asked for, or the model's limits."""
    if request.width is not None:
        return request.width / picture.width
    if request.height is not None:
        return request.height / picture.height
    limits = model.limits
    longest = max(picture.width, picture.height)
    area = picture.width * picture.height
    return min(1.0, limits.max_side / longest, math.sqrt(limits.max_pixels / area))


def _scaled(picture: Sides, scale: float, multiple: int) -> Sides:
    def on_grid(pixels: float) -> int:
        return max(MIN_SIDE_PIXELS, int(pixels) // multiple * multiple)

    return Sides(on_grid(picture.width * scale), on_grid(picture.height * scale))


def _check_limits(asked: Generation, model: Model) -> None:
    most = model.limits
    bounds: tuple[tuple[str, float, float], ...] = (
        ("width", asked.width, most.max_side),
        ("height", asked.height, most.max_side),
        ("num_inference_steps", asked.num_inference_steps, most.max_steps),
        ("guidance_scale", asked.guidance_scale, most.max_guidance_scale),
        ("num_images", asked.num_images, most.max_images),
    )
    for name, value, limit in bounds:
        if value > limit:
            raise InvalidInput(
                f"{name} must be at most {limit:g} for model {model.name}", target=name
            )
    if asked.width * asked.height > most.max_pixels:
        raise InvalidInput(
            f"width x height must be at most {most.max_pixels:,} pixels for model {model.name}",
            target="width",
        )
    for name in ("width", "height"):
        if getattr(asked, name) % model.side_multiple:
            raise InvalidInput(
                f"{name} must be a multiple of {model.side_multiple} for model {model.name}",
                target=name,
            )
    allowed = model.schedulers_allowed()
    if asked.scheduler not in allowed:
        raise InvalidInput(
            f"scheduler must be one of {', '.join(allowed)} for model {model.name}",
            target="scheduler",
        )
    _check_strength(asked)
    _check_loras(asked, model)


def _check_strength(asked: Generation) -> None:
    if asked.strength is not None and int(asked.num_inference_steps * asked.strength) < 1:
        raise InvalidInput(
            f"strength {asked.strength:g} of {asked.num_inference_steps} steps is less than one"
            " step: ask for more of either",
            target="strength",
        )


def _check_loras(asked: Generation, model: Model) -> None:
    known = [lora.name for lora in model.loras]
    names = [lora.name for lora in asked.loras]
    for index, name in enumerate(names):
        if name not in known:
            has = ", ".join(known) or "none"
            raise InvalidInput(
                f"loras.{index}.name is not a LoRA of model {model.name}; it has: {has}",
                target=f"loras.{index}.name",
            )
    if len(set(names)) != len(names):
        raise InvalidInput("loras must name each LoRA at most once", target="loras")
