"""The autoencoder: an encoder in closed form and a small trained decoder.

An ``AutoencoderTiny`` encoder without blocks is a chain of linear 3x3 convolutions, three of them
with stride 2. Two of the strides gather the pixels of a 4x4 patch in 48 channels, the third
projects each 8x8 patch on its first principal components; so the encoder needs no training.
"""

import math
import time
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

LATENT_CHANNELS: Final = 16
PATCH: Final = 8
_ENCODER_WIDTH: Final = 48
_DECODER_WIDTH: Final = 32
LATENT_SCALE: Final = 1.0
WHITENING: Final = 0.25
LATENT_NOISE: Final = 0.15


def new_autoencoder() -> AutoencoderTiny:
    """An AutoencoderTiny of the demo's size, its weights as the library leaves them."""
    return AutoencoderTiny(
        encoder_block_out_channels=(_ENCODER_WIDTH,) * 4,
        num_encoder_blocks=(0, 0, 0, 0),
        decoder_block_out_channels=(_DECODER_WIDTH,) * 4,
        num_decoder_blocks=(3, 3, 1, 0),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
    )


def images_to_input(images: np.ndarray) -> Tensor:
    """uint8 pictures (n, h, w, 3) as the model's input (n, 3, h, w) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def patches(images: np.ndarray) -> np.ndarray:
    """8x8 patches of uint8 pictures (n, h, w, 3), as rows (channel, y, x) in 0..1."""
    n, h, w, _ = images.shape
    blocks = images.astype(np.float32).reshape(n, h // PATCH, PATCH, w // PATCH, PATCH, 3) / 255
    return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(-1, 3 * PATCH * PATCH)


def principal_projection(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projection (components, 192) and its bias, from the patches of the first 2500 ``images``.

    Coarse colour comes first and keeps most of its weight (``WHITENING`` 0 keeps all of it, 1
    none): the denoiser then settles colour and outline before it draws the edges.
    """
    rows = patches(images[:2500])
    mean = rows.mean(0)
    variance, vectors = np.linalg.eigh(np.cov((rows - mean).T))
    deviation = np.sqrt(variance[::-1][:LATENT_CHANNELS])
    scale = deviation**-WHITENING
    scale *= LATENT_SCALE / np.sqrt(((deviation * scale)[:3] ** 2).mean())
    projection = (vectors[:, ::-1][:, :LATENT_CHANNELS] * scale).T
    return projection.astype(np.float32), (-projection @ mean).astype(np.float32)


def set_encoder(vae: AutoencoderTiny, projection: np.ndarray, bias: np.ndarray) -> None:
    """Make ``vae.encoder`` compute ``projection`` of each 8x8 patch, exactly."""
    copy, to2, to4, to8, out = (m for m in vae.encoder.layers if isinstance(m, nn.Conv2d))
    kernel = projection.reshape(-1, 3, PATCH, PATCH)
    with torch.no_grad():
        for layer in (copy, to2, to4, to8, out):
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()
        for c in range(3):
            copy.weight[c, c, 1, 1] = 1
        for c, dy, dx in np.ndindex(3, 2, 2):
            to2.weight[c * 4 + dy * 2 + dx, c, 1 + dy, 1 + dx] = 1
        for c, dy, dx in np.ndindex(12, 2, 2):
            to4.weight[c * 4 + dy * 2 + dx, c, 1 + dy, 1 + dx] = 1
        for c, y, x in np.ndindex(3, PATCH, PATCH):
            # The first stride split off the lowest bit of y and x, the second the next one.
            inner = (c * 4 + (y & 1) * 2 + (x & 1)) * 4 + (y >> 1 & 1) * 2 + (x >> 1 & 1)
            to8.weight[:LATENT_CHANNELS, inner, 1 + (y >> 2), 1 + (x >> 2)] = torch.from_numpy(
                kernel[:, c, y, x].copy()
            )
        for j in range(LATENT_CHANNELS):
            out.weight[j, j, 1, 1] = 1
        assert out.bias is not None
        out.bias.copy_(torch.from_numpy(bias))


def _prepare_decoder(vae: AutoencoderTiny) -> None:
    """Weights that keep the signal alive: the library's default fades in stacks without norms."""
    for module in vae.decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in vae.decoder.modules():
        if isinstance(module, AutoencoderTinyBlock):
            module.conv[-1].weight.data.mul_(0.2)
    last = vae.decoder.layers[-1]
    last.weight.data.mul_(0.1)
    nn.init.constant_(last.bias, 0.5)


def _round_trip_loss(got: Tensor, want: Tensor) -> Tensor:
    """L1 + squared error + error of the differences between neighbours (sharp edges)."""
    error = got - want
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + error.square().mean() + 0.5 * edges


def train_autoencoder(
    images: np.ndarray, encoder: tuple[np.ndarray, np.ndarray], minutes: float, seed: int = 0
) -> AutoencoderTiny:
    """Train a decoder for ``encoder`` (projection and bias) for ``minutes``.

    ``images`` are uint8 pictures (n, h, w, 3) of 128 pixels or more a side.
    """
    torch.manual_seed(seed)
    vae = new_autoencoder()
    _prepare_decoder(vae)
    set_encoder(vae, *encoder)
    fit_decoder(vae, images, minutes, seed)
    return vae


def fit_decoder(vae: AutoencoderTiny, images: np.ndarray, minutes: float, seed: int) -> None:
    """Train the decoder of ``vae`` in place, on latents with some noise.

    A denoiser this small leaves some noise in its latents; a decoder that has met it draws flat
    colours and straight edges all the same.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=1.5e-3, betas=(0.9, 0.99))
    started, step, errors = time.monotonic(), 0, []
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        rate = 1.5e-3 * min(1.0, (step + 1) / 50) * (0.52 + 0.48 * math.cos(math.pi * progress))
        optimizer.param_groups[0]["lr"] = rate
        picked = images[rng.integers(0, len(images), 8)]
        y, x = (PATCH * v for v in rng.integers(0, 9, 2))
        want = images_to_input(np.ascontiguousarray(picked[:, y : y + 64, x : x + 64]))
        with torch.no_grad():
            latents = vae.encoder(want)
            latents += torch.randn_like(latents) * LATENT_NOISE * torch.rand(len(latents), 1, 1, 1)
        got = vae.decoder(latents)
        loss = _round_trip_loss(got, want)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimizer.step()
        errors.append((got.detach() - want).square().mean().item())
        step += 1
        if step % 200 == 0:
            decibel = 10 * math.log10(4 / float(np.mean(errors[-200:])))
            print(f"autoencoder step {step} {decibel:.1f} dB", flush=True)


def encode_all(vae: AutoencoderTiny, images: np.ndarray) -> Tensor:
    """Latents (n, channels, h/8, w/8) in half precision of uint8 pictures (n, h, w, 3)."""
    with torch.no_grad():
        parts = [
            vae.encoder(images_to_input(images[i : i + 64])).half()
            for i in range(0, len(images), 64)
        ]
    return torch.cat(parts)
