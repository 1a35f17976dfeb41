"""The denoiser: a UNet that reads the text twice, pooled and token by token.

The pooled text joins the time embedding (``addition_embed_type="text"``), which scales and shifts
every layer, so that what to draw reaches all resolutions at once; cross-attention at the two
coarser levels binds words to places. Both come from ``encoder_hidden_states`` alone, so that the
stock ``StableDiffusionPipeline`` needs no change.
"""

from typing import Final

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor

from models.demo.autoencoder import LATENT_CHANNELS, PATCH
from models.demo.text import TEXT_WIDTH

IMAGE_SIDE: Final = 128
TRAIN_STEPS: Final = 1000
WIDTHS: Final = (64, 96, 128)
_HEADS: Final = 4


def new_denoiser() -> UNet2DConditionModel:
    """A conditional UNet of the demo's size."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIDE // PATCH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=_HEADS,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=_HEADS,
    )


def new_scheduler() -> DPMSolverMultistepScheduler:
    """The scheduler that ships; its last training step keeps 0.02 % of the signal."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def sample_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Timesteps for ``count`` training samples, stratified, so that every batch holds all kinds.

    Two in five are even; the others fall where places, colours and outlines settle (noise of 0.9
    to 15 times the signal, steps 280 to 880), for those are what a prompt is about.
    """
    even = round(count * 0.4)
    everywhere = (torch.arange(even) + torch.rand(even, generator=generator)) / max(1, even)
    rest = count - even
    middle = (torch.arange(rest) + torch.rand(rest, generator=generator)) / max(1, rest)
    share = torch.cat([everywhere, 0.28 + 0.6 * middle])
    return (share * TRAIN_STEPS).long().clamp_(0, TRAIN_STEPS - 1)


class VPrediction:
    """Noising and the v target (Salimans & Ho 2022, appendix D) on the scheduler's noise levels."""

    def __init__(self, scheduler: DPMSolverMultistepScheduler) -> None:
        self._signal_power = scheduler.alphas_cumprod.float()

    def noised(self, clean: Tensor, noise: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Latents noised to ``steps`` and the answer that is wanted, both shaped like ``clean``."""
        power = self._signal_power[steps][:, None, None, None]
        signal, level = power.sqrt(), (1 - power).sqrt()
        return signal * clean + level * noise, signal * noise - level * clean
