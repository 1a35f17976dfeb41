"""Paint a spec with Pillow, anti-aliased by supersampling."""

import math
import random
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from models.demo import landscape
from models.demo.world import COLORS, Pair, Rgb, Single, Spec

SUPERSAMPLING: Final = 3
Point = tuple[float, float]
_RADIUS_OF_SIZE: Final = {"small": (0.17, 0.21), "medium": (0.27, 0.33), "big": (0.37, 0.42)}


def _circle() -> list[Point]:
    turns = [2 * math.pi * i / 72 for i in range(72)]
    return [(math.cos(t), math.sin(t)) for t in turns]


def _square() -> list[Point]:
    return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]


def _triangle() -> list[Point]:
    return [(0.0, -0.95), (1.04, 0.85), (-1.04, 0.85)]


def _diamond() -> list[Point]:
    return [(0.0, -1.1), (0.84, 0.0), (0.0, 1.1), (-0.84, 0.0)]


def _star() -> list[Point]:
    radii = [1.2 if i % 2 == 0 else 0.5 for i in range(10)]
    return [
        (r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)
    ]


def _heart() -> list[Point]:
    points = []
    for i in range(60):
        t = 2 * math.pi * i / 60
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16, -(y + 2.5) / 16))
    return points


_OUTLINES: Final[dict[str, Callable[[], list[Point]]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "heart": _heart,
}


def outline(shape: str, center: Point, radius: float) -> list[Point]:
    """Corners of ``shape`` around ``center``, in the unit of ``radius`` (pixels, usually)."""
    return [(center[0] + radius * x, center[1] + radius * y) for x, y in _OUTLINES[shape]()]


def jittered(color: Rgb, rng: random.Random, amount: int = 5) -> Rgb:
    """``color`` a little lighter or darker, so that the model learns a name, not a number."""
    shift = rng.randint(-amount, amount)
    r, g, b = (max(0, min(255, v + shift + rng.randint(-2, 2))) for v in color)
    return r, g, b


def draw(spec: Spec, rng: random.Random, width: int = 128, height: int = 128) -> Image.Image:
    """An RGB picture of ``spec``, ``width`` x ``height`` pixels; ``rng`` places the figures."""
    big_w, big_h = width * SUPERSAMPLING, height * SUPERSAMPLING
    if isinstance(spec, Single):
        image = _draw_single(spec, rng, big_w, big_h)
    elif isinstance(spec, Pair):
        image = _draw_pair(spec, rng, big_w, big_h)
    else:
        image = landscape.draw_scene(spec, rng, big_w, big_h)
    return image.reduce(SUPERSAMPLING)


def pixels(spec: Spec, rng: random.Random, width: int = 128, height: int = 128) -> np.ndarray:
    """``draw`` as an array of uint8, height x width x 3."""
    return np.asarray(draw(spec, rng, width, height))


def _draw_single(spec: Single, rng: random.Random, w: int, h: int) -> Image.Image:
    side = min(w, h)
    image = Image.new("RGB", (w, h), jittered(COLORS[spec.background], rng))
    low, high = _RADIUS_OF_SIZE[spec.size]
    drift = side * (0.03 if spec.size == "big" else 0.07)
    center = (w / 2 + rng.uniform(-drift, drift), h / 2 + rng.uniform(-drift, drift))
    fill = jittered(COLORS[spec.figure.color], rng)
    corners = outline(spec.figure.shape, center, side * rng.uniform(low, high))
    ImageDraw.Draw(image).polygon(corners, fill=fill)
    return image


def _draw_pair(spec: Pair, rng: random.Random, w: int, h: int) -> Image.Image:
    side = min(w, h)
    image = Image.new("RGB", (w, h), jittered(COLORS[spec.background], rng))
    canvas = ImageDraw.Draw(image)
    for figure, sign in ((spec.first, -1), (spec.second, 1)):
        along = sign * rng.uniform(0.235, 0.255)
        across = rng.uniform(-0.05, 0.05)
        dx, dy = (
            (along * w, across * side) if spec.relation == "left" else (across * side, along * h)
        )
        radius = side * rng.uniform(0.185, 0.212)
        corners = outline(figure.shape, (w / 2 + dx, h / 2 + dy), radius)
        canvas.polygon(corners, fill=jittered(COLORS[figure.color], rng))
    return image
