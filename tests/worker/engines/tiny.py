"""Builds a Stable Diffusion pipeline folder with seeded random weights, in the ordinary format."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline
from diffusers import UNet2DConditionModel as UNet
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def byte_level_tokenizer() -> CLIPTokenizer:
    """A byte-level tokenizer without merges, as CLIP's is laid out: every letter is a token."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)


def save_tiny_stable_diffusion(
    folder: Path,
    *,
    tiny_autoencoder: bool = False,
    channels: int = 4,
    unet_channels: int | None = None,
) -> Path:
    """Write the folder and return it; the U-Net takes the latents' channels, or its own number."""
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=unet_channels or channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=8,
    )
    pipeline = StableDiffusionPipeline(
        vae=_autoencoder(tiny_autoencoder, channels),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.02,
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_lora(base: Path, file: Path, seed: int) -> Path:
    """Write random adapters of rank 2 for every attention of the pipeline in ``base``."""
    unet = UNet.from_pretrained(base / "unet")
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=ATTENTION))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    noise = torch.Generator().manual_seed(seed)
    for name, weights in layers.items():
        layers[name] = torch.randn(weights.shape, generator=noise) * 0.2
    file.parent.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(
        file.parent, unet_lora_layers=layers, weight_name=file.name
    )
    return file


def _autoencoder(tiny: bool, channels: int) -> AutoencoderKL | AutoencoderTiny:
    if tiny:
        return AutoencoderTiny(
            latent_channels=channels,
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
        )
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
    )
