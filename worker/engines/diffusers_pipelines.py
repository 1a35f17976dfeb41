"""Diffusers pipelines from catalog entries: loading, deriving other kinds, schedulers."""

import inspect
import json
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import FrozenDict
from safetensors import SafetensorError

from darkroom.catalog import Model
from darkroom.errors import InvalidInput, ModelUnavailable
from darkroom.families import FAMILIES
from worker.engines.diffusers_devices import dtype_on, is_out_of_memory, noticing_loss
from worker.engines.diffusers_options import place

VARIANTS: Mapping[str, str] = {
    "text_to_image": "AutoPipelineForText2Image",
    "image_to_image": "AutoPipelineForImage2Image",
    "inpainting": "AutoPipelineForInpainting",
}
"""For each kind of generation, what of diffusers knows the pipeline class of each family.

Named, not imported: that would import the pipelines of all families, at every worker's start.
"""

INPAINTING_CHANNELS = (4, 9)

LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)
"""What diffusers and transformers raise for a folder that is damaged or of an unknown class."""


def load_pipeline(model: Model, folder: Path, device: torch.device) -> Any:
    """Load the pipeline in ``folder`` onto ``device``. Safetensors only: pickles can run code.

    Raises `ModelUnavailable`, `DeviceLost`; lets what `is_out_of_memory` pass.
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
        _check_family(model, index["_class_name"])
        with noticing_loss():
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **options)
            place(pipeline, model, device)
    except ModelUnavailable:
        raise
    except (*LOAD_ERRORS, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelUnavailable(
            f"model {model.name} cannot be loaded: {type(error).__name__}", target="model"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _check_family(model: Model, class_name: str) -> None:
    """Refuse files that are not of the family that admission went by."""
    if model.family is None:
        return
    able = FAMILIES[model.family].pipelines.values()
    if class_name not in able:
        raise ModelUnavailable(
            f"model {model.name}: the files are of {class_name}; the catalog says {model.family},"
            f" which is one of {', '.join(able)}",
            target="model",
        )


def derive(pipeline: Any, kind: str) -> Any:
    """Return a pipeline of ``kind`` on the same components as ``pipeline``.

    Raises `InvalidInput` when its family has none.
    """
    if kind == "text_to_image" and "image" not in inspect.signature(pipeline.__call__).parameters:
        return pipeline
    try:
        derived = getattr(diffusers, VARIANTS[kind]).from_pipe(pipeline)
    except ValueError as error:
        if kind == "text_to_image":
            return pipeline  # of a class that diffusers lists nowhere: it is what its folder says
        target = "mask_image" if kind == "inpainting" else "image"
        name = type(pipeline).__name__
        raise InvalidInput(
            f"{name} has no {kind.replace('_', '-')} variant", target=target
        ) from error
    if kind == "inpainting":
        _fit_for_inpainting(derived)
    derived.set_progress_bar_config(disable=True)
    return derived


def _fit_for_inpainting(pipeline: Any) -> None:
    """Have Stable Diffusion's inpainting take a U-Net of latents that are not 4 channels.

    diffusers blends the latents of a U-Net of 4 channels, and feeds the mask to one of 9; it tells
    them by these numbers and refuses any other mid-call, though its blending suits all. So a U-Net
    that takes its autoencoder's latents gets a twin, on the same weights, that says 4. Raises
    `InvalidInput` for any other.
    """
    if not type(pipeline).__name__.startswith("StableDiffusion") or not hasattr(pipeline, "unet"):
        return
    unet, channels = pipeline.unet, pipeline.unet.config.in_channels
    if channels in INPAINTING_CHANNELS:
        return
    if channels != pipeline.vae.config.latent_channels or hasattr(unet, "_hf_hook"):
        raise InvalidInput(
            f"{type(pipeline).__name__} cannot inpaint with this model's latents",
            target="mask_image",
        )
    twin = copy(unet)
    twin._internal_dict = FrozenDict({**unet.config, "in_channels": min(INPAINTING_CHANNELS)})
    pipeline.register_modules(unet=twin)


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
