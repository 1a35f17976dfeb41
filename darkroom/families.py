"""What the families of models can do: which diffusers pipelines, sizes, schedulers and options.

One table for both tiers: admission refuses by it what a pipeline would refuse minutes later, and a
worker refuses weights that are of another family than the catalog says. Nothing of diffusers is
imported here; `tests/worker/engines/test_families.py` holds the table to the classes themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FamilyName = Literal[
    "stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "flux", "qwen-image", "z-image"
]

GuidanceBy = Literal["guidance_scale", "true_cfg_scale", "distillation"]
"""How a family is guided.

``guidance_scale``: without a negative prompt the empty one stands in for it.
``true_cfg_scale``: likewise, but the pipelines call the scale so.
``distillation``: the scale is an input of the network; only a negative prompt makes the pipeline
denoise twice, and then the scale is passed as ``true_cfg_scale`` and the network's own is 1.
"""

FLOW_SCHEDULERS = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"})
"""The schedulers for models that were trained to match flows, with the steps their pipelines ask.

`FlowMatchHeunDiscreteScheduler` takes neither the sigmas nor the shift that FLUX's pipeline passes.
"""


@dataclass(frozen=True)
class Family:
    """One architecture.

    ``pipelines`` are the diffusers classes by kind of generation: a kind that is missing cannot be
    asked for. Sides are multiples of ``side_multiple`` pixels: the autoencoder's scale times the
    denoiser's patch. A guidance scale up to ``unguided`` changes nothing.
    """

    pipelines: Mapping[str, str]
    guidance: GuidanceBy = "guidance_scale"
    unguided: float = 1.0
    is_flow: bool = True
    side_multiple: int = 16
    slices_attention: bool = False
    takes_channels_last: bool = True


def _pipelines(name: str) -> dict[str, str]:
    return {
        "text_to_image": f"{name}Pipeline",
        "image_to_image": f"{name}Img2ImgPipeline",
        "inpainting": f"{name}InpaintPipeline",
    }


FAMILIES: Mapping[FamilyName, Family] = {
    "stable-diffusion": Family(
        _pipelines("StableDiffusion"), is_flow=False, side_multiple=8, slices_attention=True
    ),
    "stable-diffusion-xl": Family(
        _pipelines("StableDiffusionXL"), is_flow=False, side_multiple=8, slices_attention=True
    ),
    "stable-diffusion-3": Family(_pipelines("StableDiffusion3")),
    "flux": Family(_pipelines("Flux"), guidance="distillation"),
    "qwen-image": Family(
        _pipelines("QwenImage"), guidance="true_cfg_scale", takes_channels_last=False
    ),
    "z-image": Family(_pipelines("ZImage"), unguided=0.0),
}
"""Every family that is tested. An entry that names none is taken as its files say it is."""
