"""A catalog entry's options, applied to its pipeline. What each trades is in docs/models.md."""

from typing import Any

import torch

from darkroom.catalog import Model
from darkroom.errors import ModelUnavailable

DENOISERS = ("unet", "transformer")


def place(pipeline: Any, model: Model, device: torch.device) -> None:
    """Apply the options of ``model`` and bring the pipeline to ``device``, or let it be offloaded.

    On a CPU nothing is offloaded: the weights are in the host's memory as it is. Raises
    `ModelUnavailable` for an option that the pipeline does not offer.
    """
    options = model.options
    if options.vae_slicing:
        _method(model, pipeline, "vae", "enable_slicing", "vae_slicing")()
    if options.vae_tiling:
        _method(model, pipeline, "vae", "enable_tiling", "vae_tiling")()
    if options.attention_slicing:
        _slice_attention(pipeline, model)
    if options.channels_last:
        _last_channels(pipeline)
    if options.compile:
        _compile(denoiser(pipeline))
    bring(pipeline, model, device)


def bring(pipeline: Any, model: Model, device: torch.device) -> None:
    """Move every component to ``device``, or have each brought there when it is needed."""
    if is_offloaded(model, device):
        if model.options.cpu_offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        else:
            pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)


def is_offloaded(model: Model, device: torch.device) -> bool:
    """Whether the weights rest in host memory and come to ``device`` in parts."""
    return device.type != "cpu" and model.options.cpu_offload != "none"


def denoiser(pipeline: Any) -> Any:
    """Return the network that is called at each step."""
    return next(getattr(pipeline, name) for name in DENOISERS if hasattr(pipeline, name))


def _method(model: Model, pipeline: Any, part: str, method: str, option: str) -> Any:
    offered = getattr(getattr(pipeline, part, None), method, None)
    if offered is None:
        raise _not_offered(model, pipeline, option)
    return offered


def _slice_attention(pipeline: Any, model: Model) -> None:
    if not hasattr(denoiser(pipeline), "set_attention_slice"):
        raise _not_offered(model, pipeline, "attention_slicing")
    pipeline.enable_attention_slicing()


def _last_channels(pipeline: Any) -> None:
    """Lay out the weights of two-dimensional convolutions for tensor cores: others stay."""
    for part in (denoiser(pipeline), pipeline.vae):
        part.to(memory_format=torch.channels_last)


def _compile(network: Any) -> None:
    """Compile in place, so that the module keeps its class and its adapters.

    A transformer's repeated block is compiled once for all of its layers, which takes a tenth of
    the time of compiling them all; a U-Net, whose blocks differ, is compiled as a whole.
    """
    if hasattr(network, "down_blocks"):
        network.compile()
    else:
        network.compile_repeated_blocks()


def _not_offered(model: Model, pipeline: Any, option: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"model {model.name}: options.{option} is not offered by {type(pipeline).__name__}",
        target="model",
    )
