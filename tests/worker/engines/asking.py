"""What the engine's tests ask for, and how they look at what they get."""

import io
from typing import Any

import numpy as np
from PIL import Image

from darkroom.generation import Generation, InputImage
from tests.samples import make_generation
from worker.engines.base import GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine

GIVEN = InputImage(sha256="0" * 64, width=64, height=64)


def ask(**fields: Any) -> Generation:
    small = {"width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 4.0}
    return make_generation(**{"model": "tiny", "prompt": "a red square", **small, **fields})


def quiet(step: int, total: int, preview: Preview) -> None:
    """Watch nothing."""


def run(engine: DiffusersEngine, *asked: Generation, **pictures: Any) -> list[list[Image.Image]]:
    return engine.generate([GenerationTask(one, **pictures) for one in asked], quiet)


def pixels(picture: Image.Image) -> "np.ndarray[Any, Any]":
    return np.asarray(picture).astype(int)


def farthest(one: Image.Image, other: Image.Image) -> int:
    """Return how far the two pictures are apart where they are most, in grey levels."""
    return int(np.abs(pixels(one) - pixels(other)).max())


def colour(picture: Image.Image) -> "np.ndarray[Any, Any]":
    """Return the mean colour."""
    mean: np.ndarray[Any, Any] = np.asarray(picture).mean((0, 1))
    return mean


def png(shade: tuple[int, int, int] | int, size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB" if isinstance(shade, tuple) else "L", size, shade).save(file, "PNG")
    return file.getvalue()
