"""The training pictures as latents: drawn and encoded once, captioned anew each time."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.demo.autoencoder import LATENT_CHANNELS, PATCH, patches
from models.demo.captions import Caption, paraphrase
from models.demo.drawing import pixels
from models.demo.world import Spec, sample_spec

EMPTY_CAPTION_SHARE: Final = 0.12
_CHUNK: Final = 250


def encode(images: np.ndarray, projection: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Latents (n, channels, h/8, w/8) of uint8 pictures (n, h, w, 3), as the encoder gives them."""
    n, h, w, _ = images.shape
    rows = patches(images) @ projection.T + bias
    grid: np.ndarray = rows.reshape(n, h // PATCH, w // PATCH, LATENT_CHANNELS)
    return grid.transpose(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class LatentPool:
    """Latents in half precision and the spec of each."""

    latents: Tensor
    specs: list[Spec]

    def batch(self, count: int, rng: random.Random) -> tuple[Tensor, list[Caption]]:
        """``count`` random latents in single precision and a fresh caption for each."""
        picked = [rng.randrange(len(self.specs)) for _ in range(count)]
        captions = [
            Caption("", {})
            if rng.random() < EMPTY_CAPTION_SHARE
            else paraphrase(self.specs[i], rng)
            for i in picked
        ]
        return self.latents[picked].float(), captions


def draw_pool(
    count: int, seed: int, encoder: Path, kind: str | None = None, side: int = 128
) -> LatentPool:
    """Draw ``count`` training pictures, ``side`` pixels square, and encode them.

    ``encoder`` is the file that holds the autoencoder's projection and bias.
    """
    weights = np.load(encoder)
    rng = random.Random(seed)
    specs: list[Spec] = []
    parts: list[Tensor] = []
    while len(specs) < count:
        chunk = [sample_spec(rng, kind) for _ in range(min(_CHUNK, count - len(specs)))]
        images = np.stack([pixels(spec, rng, side, side) for spec in chunk])
        latents = encode(images, weights["projection"], weights["bias"])
        parts.append(torch.from_numpy(latents).half())
        specs += chunk
    return LatentPool(torch.cat(parts), specs)
