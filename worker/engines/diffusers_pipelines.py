"""Diffusers pipelines from catalog entries: loading, deriving other kinds, schedulers, arguments.

What a pipeline class can take is read from its own signature, so that a new class needs no code
here: what it has no parameter for is either harmless to leave out or refused.
"""

import inspect
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from darkroom.catalog import Model
from darkroom.errors import InvalidInput, ModelUnavailable
from darkroom.generation import Generation
from worker.engines.base import GenerationTask
from worker.engines.diffusers_devices import dtype_on, noticing_loss

VARIANTS: Mapping[str, Any] = {
    "text_to_image": diffusers.AutoPipelineForText2Image,
    "image_to_image": diffusers.AutoPipelineForImage2Image,
    "inpainting": diffusers.AutoPipelineForInpainting,
}
"""For each kind of generation, what knows the pipeline class of each family."""

INPAINTING_CHANNELS = (4, 9)

NO_GUIDANCE = 1.0  # at this scale classifier-free guidance changes nothing, and pipelines skip it

LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)
"""What diffusers and transformers raise for a folder that is damaged or of an unknown class."""


def load_pipeline(model: Model, folder: Path, device: torch.device) -> Any:
    """Load the pipeline in ``folder`` onto ``device``. Safetensors only: pickles can run code.

    Raises `ModelUnavailable`, `DeviceLost`; lets `torch.OutOfMemoryError` pass.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        options = {
            "dtype": dtype_on(device, model),
            "variant": model.variant,
            "local_files_only": True,
            "use_safetensors": True,
        }
        if "safety_checker" in index:
            options |= {"safety_checker": None, "requires_safety_checker": False}
        with noticing_loss():
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **options).to(device)
    except torch.OutOfMemoryError:
        raise
    except (*LOAD_ERRORS, SafetensorError) as error:
        raise ModelUnavailable(
            f"model {model.name} cannot be loaded: {type(error).__name__}", target="model"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def derive(pipeline: Any, kind: str) -> Any:
    """Return a pipeline of ``kind`` on the same components as ``pipeline``.

    Raises `InvalidInput` when its family has none.
    """
    try:
        derived = VARIANTS[kind].from_pipe(pipeline)
    except ValueError as error:
        if kind == "text_to_image":
            return pipeline  # of a class that diffusers lists nowhere: it is what its folder says
        target = "mask_image" if kind == "inpainting" else "image"
        name = type(pipeline).__name__
        raise InvalidInput(
            f"{name} has no {kind.replace('_', '-')} variant", target=target
        ) from error
    if kind == "inpainting" and not _can_inpaint(derived):
        raise InvalidInput(
            f"{type(derived).__name__} cannot inpaint with this model's latents",
            target="mask_image",
        )
    derived.set_progress_bar_config(disable=True)
    return derived


def _can_inpaint(pipeline: Any) -> bool:
    """Whether Stable Diffusion's inpainting takes this UNet; what is not of that family, it may.

    It blends latents of 4 channels, or feeds a UNet of 9; anything else it refuses mid-call.
    """
    if not type(pipeline).__name__.startswith("StableDiffusion") or not hasattr(pipeline, "unet"):
        return True
    return pipeline.unet.config.in_channels in INPAINTING_CHANNELS


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """Return a fresh scheduler of class ``name`` with the model's own ``config``.

    Raises `InvalidInput` for a name that is no scheduler.
    """
    known: Any = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if not inspect.isclass(known) or not hasattr(known, "from_config"):
        raise InvalidInput(f"diffusers has no scheduler called {name}", target="scheduler")
    try:
        return known.from_config(config)
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{name} cannot run this model: {type(error).__name__}", target="scheduler"
        ) from error


def arguments(pipeline: Any, batch: Sequence[GenerationTask]) -> dict[str, Any]:
    """Return the keyword arguments of one call that makes every picture of ``batch``.

    Each picture is a prompt of its own with a CPU generator of its own: its seed alone decides its
    noise, on whatever device and beside whatever mates. Raises `InvalidInput` for what the
    pipeline has no parameter for.
    """
    asked = batch[0].generation
    guided = asked.guidance_scale > NO_GUIDANCE
    wanted: dict[str, Any] = {
        "prompt": [task.generation.prompt for task in batch for _ in task.seeds],
        "width": asked.width,
        "height": asked.height,
        "num_inference_steps": asked.num_inference_steps,
        "guidance_scale": asked.guidance_scale,
        "generator": [
            torch.Generator("cpu").manual_seed(seed) for task in batch for seed in task.seeds
        ],
        "output_type": "pil",
    }
    needed: dict[str, Any] = {}
    if guided and any(task.generation.negative_prompt for task in batch):
        needed["negative_prompt"] = [
            task.generation.negative_prompt for task in batch for _ in task.seeds
        ]
    needed |= _pictures(batch)
    if asked.strength is not None:
        needed["strength"] = _strength(asked)
    accepted = inspect.signature(pipeline.__call__).parameters
    for name in needed:
        if name not in accepted:
            raise InvalidInput(f"{type(pipeline).__name__} takes no {name}", target=name)
    return {name: value for name, value in wanted.items() if name in accepted} | needed


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
