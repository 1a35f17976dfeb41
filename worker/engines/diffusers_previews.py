"""What latents show, as small pictures.

The latents are averaged down so far that their decoding gives at most `MAX_PREVIEW_PIXELS` a side,
then decoded by the pipeline's own autoencoder: for a picture of 1024 px that is a sixteenth of the
final decoding, and the averaging takes out much of the noise that is still in the latents.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from worker.engines.base import MAX_PREVIEW_PIXELS


def decode_small(
    pipeline: Any, latents: torch.Tensor, height: int, width: int, chosen: Sequence[int]
) -> list[Image.Image]:
    """Return the ``chosen`` of the batch's latents as small pictures.

    ``latents`` are as the pipeline's step callback gets them: (n, channels, rows, columns), or
    packed (n, tokens, channels) as FLUX and Qwen-Image have them; ``height`` and ``width`` are the
    final picture's, in pixels.
    """
    vae = pipeline.vae
    with torch.inference_mode():
        grid = _as_grid(pipeline, latents[list(chosen)], height, width)
        small = _averaged(grid, height, width)
        frames = small.unsqueeze(2) if takes_frames(vae) else small
        decoded = _decode(vae, _unscaled(vae, frames))
        if decoded.ndim == 5:  # (n, channels, frames, rows, columns), of one frame
            decoded = decoded[:, :, 0]
        values = (decoded.float() / 2 + 0.5).clamp(0, 1).mul(255).round().byte()
        pixels = values.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in pixels]


def takes_frames(vae: Any) -> bool:
    """Whether the autoencoder is one of videos, such as Qwen-Image's."""
    return hasattr(vae.config, "temperal_downsample")  # as the class spells it


def _as_grid(pipeline: Any, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if latents.ndim == 3:
        latents = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    if latents.ndim == 5:
        latents = latents[:, :, 0]
    return latents


def _averaged(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Average squares of latents, as large as it takes for the longest side to fit a preview."""
    side = math.ceil(max(height, width) / MAX_PREVIEW_PIXELS)
    if side == 1:
        return latents
    return avg_pool2d(latents, min(side, *latents.shape[-2:]), ceil_mode=True)


def _unscaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Undo the scaling that the denoiser works in, as every pipeline does before it decodes."""
    config = vae.config
    scale = getattr(config, "scaling_factor", None) or 1.0
    shift = getattr(config, "shift_factor", None) or 0.0
    mean, spread = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or spread is None:
        return latents / scale + shift
    shape = (1, -1) + (1,) * (latents.ndim - 2)
    return latents * _like(spread, latents).view(shape) / scale + _like(mean, latents).view(shape)


def _like(values: Sequence[float], latents: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=latents.device, dtype=latents.dtype)


def _decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decode; in float32 where the autoencoder overflows in halves, as SDXL's does."""
    upcast = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if not upcast:
        decoded: torch.Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        return decoded
    vae.to(dtype=torch.float32)
    try:
        decoded = vae.decode(latents.float(), return_dict=False)[0]
        return decoded
    finally:
        vae.to(dtype=torch.float16)
