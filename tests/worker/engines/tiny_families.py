"""Builds a pipeline folder of each family, with seeded random weights, in the ordinary format.

One or two layers each, 8 to 32 wide. The autoencoders reduce by 8, like the real ones.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from darkroom.families import FamilyName
from tests.worker.engines.tiny import byte_level_tokenizer, save_tiny_stable_diffusion

CHAT = "{% for one in messages %}<|im_start|>{{ one.content }}<|im_end|>{% endfor %}"
WIDE = 32
LATENT_CHANNELS = 4
SD3_CHANNELS = 16  # its inpainting takes no other number
SPREAD = 12.0
"""What random denoisers are multiplied with: their pictures must depend on what they are asked."""


def save_tiny(family: FamilyName, folder: Path) -> Path:
    """Write the folder of that family and return it."""
    torch.manual_seed(0)
    if family == "stable-diffusion":
        return save_tiny_stable_diffusion(folder)
    pipeline = BUILDERS[family]()
    for part in ("unet", "transformer"):
        denoiser = getattr(pipeline, part, None)
        for parameter in () if denoiser is None else denoiser.parameters():
            parameter.data = torch.randn_like(parameter) * SPREAD / max(1, parameter.shape[-1])
    pipeline.save_pretrained(folder)
    return folder


def _clip(projected: bool) -> Any:
    tokenizer = byte_level_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDE,
        intermediate_size=WIDE,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=WIDE,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer, (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _t5(width: int = WIDE) -> tuple[Any, Any]:
    letters = [(chr(code), -1.0) for code in range(33, 127)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=WIDE, num_layers=1, num_heads=4
    )
    return tokenizer, T5EncoderModel(config)


def _qwen_tokenizer() -> Qwen2Tokenizer:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*sorted(ByteLevel.alphabet()), *special]
    tokenizer = Qwen2Tokenizer(vocab={token: at for at, token in enumerate(tokens)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.chat_template = CHAT
    return tokenizer


def _autoencoder(channels: int = LATENT_CHANNELS, shift: float | None = None) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        shift_factor=shift,
    )


def _stable_diffusion_xl() -> Any:
    tokenizer, text_encoder = _clip(projected=False)
    tokenizer_2, text_encoder_2 = _clip(projected=True)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + WIDE,
        cross_attention_dim=2 * WIDE,
        norm_num_groups=8,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_autoencoder(),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading"),
        add_watermarker=False,
    )


def _stable_diffusion_3() -> Any:
    tokenizer, text_encoder = _clip(projected=True)
    tokenizer_2, text_encoder_2 = _clip(projected=True)
    tokenizer_3, text_encoder_3 = _t5(2 * WIDE)  # as wide as both others together
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=SD3_CHANNELS,
        out_channels=SD3_CHANNELS,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDE * 2,
        caption_projection_dim=WIDE,
        pooled_projection_dim=2 * WIDE,
        pos_embed_max_size=32,
    )
    return diffusers.StableDiffusion3Pipeline(
        vae=_autoencoder(SD3_CHANNELS, shift=0.06),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        text_encoder_3=text_encoder_3,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=tokenizer_3,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux() -> Any:
    tokenizer, text_encoder = _clip(projected=False)
    tokenizer_2, text_encoder_2 = _t5()
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDE,
        pooled_projection_dim=WIDE,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return diffusers.FluxPipeline(
        vae=_autoencoder(shift=0.06),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def _qwen_image() -> Any:
    tokenizer = _qwen_tokenizer()
    text = {
        "hidden_size": WIDE,
        "intermediate_size": WIDE,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
        "rope_theta": 10000.0,
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDE,
        "intermediate_size": WIDE,
        "num_heads": 2,
        "out_hidden_size": WIDE,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDE,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 2.0, 1.5, 1.0],
    )
    return diffusers.QwenImagePipeline(
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def _z_image() -> Any:
    tokenizer = _qwen_tokenizer()
    config = Qwen3Config(
        hidden_size=WIDE,
        intermediate_size=WIDE,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=len(tokenizer),
    )
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=WIDE,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDE,
        axes_dims=[4, 4, 8],
        axes_lens=[256, 32, 32],
    )
    return diffusers.ZImagePipeline(
        vae=_autoencoder(shift=0.06),
        text_encoder=Qwen3Model(config),
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


BUILDERS: Mapping[FamilyName, Callable[[], Any]] = {
    "stable-diffusion-xl": _stable_diffusion_xl,
    "stable-diffusion-3": _stable_diffusion_3,
    "flux": _flux,
    "qwen-image": _qwen_image,
    "z-image": _z_image,
}
