"""From a batch of tasks to the keyword arguments of one pipeline call.

What a pipeline class can take is read from its own signature, so that a new class needs no code
here: what it has no parameter for is either harmless to leave out or refused. What a parameter
means in a family is in `darkroom.families`.
"""

import inspect
import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError

from darkroom.errors import InvalidInput
from darkroom.families import FAMILIES, Family
from darkroom.generation import Generation
from worker.engines.base import GenerationTask

EMPTY_PROMPT = " "
"""What Qwen-Image was trained with in place of no prompt (its model card, "negative_prompt")."""


def arguments(pipeline: Any, batch: Sequence[GenerationTask]) -> dict[str, Any]:
    """Return the keyword arguments of one call that makes every picture of ``batch``.

    Each picture is a prompt of its own with a CPU generator of its own: its seed alone decides its
    noise, on whatever device and beside whatever mates. Raises `InvalidInput` for what the
    pipeline has no parameter for.
    """
    asked = batch[0].generation
    wanted: dict[str, Any] = {
        "prompt": [task.generation.prompt for task in batch for _ in task.seeds],
        "width": asked.width,
        "height": asked.height,
        "num_inference_steps": asked.num_inference_steps,
        "generator": [
            torch.Generator("cpu").manual_seed(seed) for task in batch for seed in task.seeds
        ],
        "output_type": "pil",
    }
    scales, needed = _guidance(family_of(pipeline), batch)
    wanted |= scales
    needed |= _pictures(batch)
    if asked.strength is not None:
        needed["strength"] = _strength(asked)
    accepted = inspect.signature(pipeline.__call__).parameters
    for name in needed:
        if name not in accepted:
            raise InvalidInput(f"{type(pipeline).__name__} takes no {name}", target=name)
    return {name: value for name, value in wanted.items() if name in accepted} | needed


def calls(family: Family, batch: Sequence[GenerationTask]) -> list[list[int]]:
    """Return which tasks, by index, make up each of the pipeline calls that ``batch`` takes.

    One, except where guidance is distilled: there a negative prompt makes the pipeline denoise
    twice, all of the call or none of it, and with another scale.
    """
    groups: dict[bool, list[int]] = {}
    for index, task in enumerate(batch):
        twice = bool(task.generation.negative_prompt) and family.guidance == "distillation"
        groups.setdefault(twice, []).append(index)
    return list(groups.values())


def family_of(pipeline: Any) -> Family:
    """Return the family of the pipeline's class; one that is in none is guided by its scale."""
    name = type(pipeline).__name__
    for family in FAMILIES.values():
        if name in family.pipelines.values():
            return family
    return Family({})


def _guidance(
    family: Family, batch: Sequence[GenerationTask]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scales, and the negative prompts where they have an effect."""
    scale = batch[0].generation.guidance_scale
    negatives = [task.generation.negative_prompt for task in batch for _ in task.seeds]
    guided = scale > family.unguided
    match family.guidance:
        case "true_cfg_scale" if guided:  # the pipeline guides only beside a negative prompt
            negatives = [text or EMPTY_PROMPT for text in negatives]
            return {"true_cfg_scale": scale}, {"negative_prompt": negatives}
        case "true_cfg_scale":
            return {"true_cfg_scale": scale}, {}
        case "distillation" if guided and any(negatives):
            scales = {"true_cfg_scale": scale, "guidance_scale": 1.0}
            return scales, {"negative_prompt": negatives}
        case "guidance_scale" if guided and any(negatives):
            return {"guidance_scale": scale}, {"negative_prompt": negatives}
    return {"guidance_scale": scale}, {}


def _strength(asked: Generation) -> float:
    assert asked.strength is not None
    if asked.kind == "text_to_image":
        raise InvalidInput("strength needs an image to start from", target="strength")
    if int(asked.num_inference_steps * asked.strength) < 1:
        raise InvalidInput(
            f"strength {asked.strength:g} of {asked.num_inference_steps} steps is less than one"
            " step: ask for more of either",
            target="strength",
        )
    return asked.strength


def _pictures(batch: Sequence[GenerationTask]) -> dict[str, list[Image.Image]]:
    """Return the pictures to start from, one for each picture to make."""
    kind = batch[0].generation.kind
    pictures: dict[str, list[Image.Image]] = {}
    if kind != "text_to_image":
        pictures["image"] = [
            picture for task in batch for picture in _repeated(task, task.image, "image", "RGB")
        ]
    if kind == "inpainting":
        pictures["mask_image"] = [
            mask for task in batch for mask in _repeated(task, task.mask_image, "mask_image", "L")
        ]
    return pictures


def _repeated(
    task: GenerationTask, png: bytes | None, field: str, mode: str
) -> Sequence[Image.Image]:
    asked = task.generation
    try:
        with Image.open(io.BytesIO(png or b"")) as file:
            picture = file.convert(mode)
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidInput(f"{field} is no picture that can be read", target=field) from error
    fitted = picture.resize((asked.width, asked.height), Image.Resampling.LANCZOS)
    return [fitted] * len(task.seeds)
