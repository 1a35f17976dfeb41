"""Paint a landscape: sky and ground first, then what stands far away, then what stands near."""

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from models.demo.world import COLORS, Rgb, Scene

SKY: Final[dict[str, tuple[Rgb, Rgb]]] = {
    "day": ((70, 150, 235), (190, 226, 250)),
    "night": ((10, 14, 44), (38, 44, 92)),
    "sunset": ((104, 54, 124), (255, 150, 70)),
}
GROUND: Final[dict[str, Rgb]] = {
    "field": (88, 176, 72),
    "sea": (28, 100, 180),
    "snow": (240, 244, 250),
    "desert": (228, 192, 120),
}
LIGHT_ON_GROUND: Final = {
    "day": (1.0, 1.0, 1.0),
    "night": (0.40, 0.42, 0.58),
    "sunset": (0.88, 0.68, 0.62),
}
LIGHT_ON_THINGS: Final = {
    "day": (1.0, 1.0, 1.0),
    "night": (0.62, 0.62, 0.74),
    "sunset": (0.93, 0.78, 0.74),
}
GROUND_FADE: Final = 0.2
ROOF: Final[Rgb] = (86, 54, 44)
LEAVES: Final[dict[str, Rgb]] = {
    "round": (30, 120, 48),
    "pine": (20, 92, 60),
    "cactus": (44, 136, 66),
}
_MOUNTAIN: Final[dict[str, Rgb]] = {
    "day": (112, 122, 158),
    "night": (52, 56, 96),
    "sunset": (98, 60, 110),
}
_PEAK: Final[dict[str, Rgb]] = {
    "day": (248, 250, 255),
    "night": (140, 146, 190),
    "sunset": (255, 205, 190),
}
_ORB: Final[dict[str, Rgb]] = {
    "day": (255, 224, 60),
    "night": (244, 242, 214),
    "sunset": (255, 214, 90),
}


def lit(color: Rgb, light: tuple[float, float, float]) -> Rgb:
    """``color`` as it looks in ``light`` (a factor for each of red, green, blue)."""
    r, g, b = (int(min(255, c * k)) for c, k in zip(color, light, strict=True))
    return r, g, b


@dataclass(frozen=True, slots=True)
class _Stage:
    """The canvas of one landscape and where things stand on it, in pixels."""

    canvas: ImageDraw.ImageDraw
    width: int
    height: int
    horizon: float
    time: str
    rng: random.Random

    @property
    def side(self) -> int:
        return min(self.width, self.height)

    def disc(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        self.canvas.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)

    def thing(self, color: Rgb) -> Rgb:
        return lit(color, LIGHT_ON_THINGS[self.time])


def draw_scene(scene: Scene, rng: random.Random, width: int, height: int) -> Image.Image:
    """An RGB picture of ``scene``; ``rng`` places the things."""
    horizon = height * rng.uniform(0.565, 0.605)
    image = _backdrop(scene, width, height, horizon)
    stage = _Stage(ImageDraw.Draw(image), width, height, horizon, scene.time, rng)
    _sky(scene, stage)
    if scene.mountains:
        _mountains(stage)
    if scene.ground == "sea":
        _waves(stage)
    house_x, tree_x = _places(scene, stage)
    if scene.tree:
        _tree(scene.tree, stage, tree_x)
    if scene.house:
        _house(scene.house, stage, house_x)
    if scene.boat:
        _boat(scene.boat, stage)
    return image


def _backdrop(scene: Scene, width: int, height: int, horizon: float) -> Image.Image:
    top, bottom = (np.array(color, float) for color in SKY[scene.time])
    rows = np.arange(height)
    share = np.clip(rows / horizon, 0, 1)[:, None]
    column = top * (1 - share) + bottom * share
    ground = np.array(lit(GROUND[scene.ground], LIGHT_ON_GROUND[scene.time]), float)
    first = int(horizon)
    fade = 1 - GROUND_FADE * np.clip((rows[first:] - first) / max(1, height - first), 0, 1)
    column[first:] = ground * fade[:, None]
    return Image.fromarray(np.repeat(column[:, None, :].astype(np.uint8), width, 1))


def _sky(scene: Scene, stage: _Stage) -> None:
    """Stars all over, sun or moon on the right, clouds on the left."""
    rng, side = stage.rng, stage.side
    if scene.time == "night":
        for _ in range(12):
            x, y = rng.uniform(0, stage.width), rng.uniform(0, stage.horizon * 0.75)
            stage.disc(x, y, side * rng.uniform(0.007, 0.012), (235, 235, 215))
    if scene.orb:
        x = stage.width * (0.5 + rng.uniform(0.23, 0.31))
        y, radius = stage.height * rng.uniform(0.15, 0.2), side * 0.095
        if scene.time == "sunset":
            x = stage.width * (0.5 + rng.uniform(0.14, 0.24))
            y, radius = stage.horizon - side * 0.07, side * 0.12
        stage.disc(x, y, radius, _ORB[scene.time])
    if scene.clouds:
        x = stage.width * (0.5 - rng.uniform(0.2, 0.27))
        y = stage.height * rng.uniform(0.14, 0.2)
        fill = stage.thing((252, 252, 255))
        for dx, dy, radius in ((-0.1, 0.01, 0.055), (0, -0.02, 0.075), (0.1, 0.01, 0.055)):
            stage.disc(x + dx * side, y + dy * side, radius * side, fill)


def _mountains(stage: _Stage) -> None:
    rng, base = stage.rng, stage.horizon
    half = stage.width * 0.42
    for i in range(2):
        x = stage.width * ((i + 0.5) / 2 + rng.uniform(-0.05, 0.05))
        tall = stage.height * rng.uniform(0.26, 0.34)
        color = lit(_MOUNTAIN[stage.time], (1, 1, 1) if i % 2 == 0 else (0.92, 0.92, 0.92))
        stage.canvas.polygon(
            [(x - half, base + 2), (x, base - tall), (x + half, base + 2)], fill=color
        )
        cut = base - tall * 0.7
        cap = [(x - half * 0.3, cut), (x, base - tall), (x + half * 0.3, cut)]
        stage.canvas.polygon(cap, fill=_PEAK[stage.time])


def _waves(stage: _Stage) -> None:
    rng = stage.rng
    r, g, b = lit(GROUND["sea"], LIGHT_ON_GROUND[stage.time])
    crest = (min(255, int(r * 1.3) + 14), min(255, int(g * 1.3) + 14), min(255, int(b * 1.3) + 14))
    for i in range(6):
        y = stage.horizon + (stage.height - stage.horizon) * (i + 0.7) / 6.5
        x, length = stage.width * rng.uniform(0.02, 0.8), stage.width * rng.uniform(0.12, 0.22)
        stage.canvas.rectangle([x, y, x + length, y + stage.side * 0.012], fill=crest)


def _places(scene: Scene, stage: _Stage) -> tuple[float, float]:
    """Where the house and the tree stand: the tree left of the house, either in the middle alone.

    Settled places are what lets so small a model learn to draw whole houses.
    """
    rng, width = stage.rng, stage.width
    if scene.house and scene.tree:
        return width * (0.5 + rng.uniform(0.15, 0.2)), width * (0.5 - rng.uniform(0.25, 0.29))
    alone = rng.uniform(-0.05, 0.05)
    return width * (0.5 + alone), width * (0.5 + alone)


def _tree(kind: str, stage: _Stage, x: float) -> None:
    side, canvas = stage.side, stage.canvas
    base = stage.horizon + stage.height * stage.rng.uniform(0.13, 0.17)
    leaves, bark = stage.thing(LEAVES[kind]), stage.thing((108, 70, 40))
    if kind == "cactus":
        _cactus(stage, x, base, leaves)
        return
    canvas.rectangle([x - side * 0.026, base - side * 0.16, x + side * 0.026, base], fill=bark)
    if kind == "round":
        for dx, dy, radius in ((-0.07, 0.22, 0.1), (0.07, 0.22, 0.1), (0, 0.32, 0.11)):
            stage.disc(x + dx * side, base - dy * side, radius * side, leaves)
        return
    for low, half in ((0.07, 0.155), (0.18, 0.125), (0.29, 0.09)):
        foot = base - low * side
        tip = base - (low + 0.19) * side
        canvas.polygon([(x - half * side, foot), (x, tip), (x + half * side, foot)], fill=leaves)


def _cactus(stage: _Stage, x: float, base: float, fill: Rgb) -> None:
    side, canvas = stage.side, stage.canvas
    boxes = [
        (-0.042, 0.38, 0.042, 0.0),
        (-0.155, 0.27, -0.095, 0.13),
        (-0.14, 0.185, 0.0, 0.13),
        (0.095, 0.32, 0.155, 0.18),
        (0.0, 0.235, 0.14, 0.18),
    ]
    for left, top, right, bottom in boxes:
        box = [x + left * side, base - top * side, x + right * side, base - bottom * side]
        canvas.rounded_rectangle(box, side * 0.028, fill=fill)


def _house(color: str, stage: _Stage, x: float) -> None:
    side, canvas = stage.side, stage.canvas
    base = stage.horizon + stage.height * stage.rng.uniform(0.18, 0.205)
    half, wall = side * 0.175, side * 0.21
    canvas.rectangle([x - half, base - wall, x + half, base], fill=stage.thing(COLORS[color]))
    eaves, ridge = base - wall, base - wall - side * 0.17
    roof = [(x - half * 1.25, eaves), (x, ridge), (x + half * 1.25, eaves)]
    canvas.polygon(roof, fill=stage.thing(ROOF))
    door = [x - side * 0.034, base - side * 0.11, x + side * 0.034, base]
    canvas.rectangle(door, fill=stage.thing((74, 46, 36)))
    pane = (205, 232, 250) if stage.time == "day" else (255, 226, 120)
    for dx in (-0.105, 0.105):
        left, right = x + (dx - 0.028) * side, x + (dx + 0.028) * side
        canvas.rectangle([left, base - side * 0.165, right, base - side * 0.11], fill=pane)


def _boat(color: str, stage: _Stage) -> None:
    side, canvas, rng = stage.side, stage.canvas, stage.rng
    x = stage.width * (0.5 + rng.uniform(-0.1, 0.1))
    y = stage.horizon + stage.height * rng.uniform(0.12, 0.19)
    hull = [(-0.18, -0.05), (0.18, -0.05), (0.12, 0.045), (-0.12, 0.045)]
    big_sail = [(0.005, -0.07), (0.005, -0.4), (0.165, -0.07)]
    small_sail = [(-0.02, -0.07), (-0.02, -0.33), (-0.13, -0.07)]
    sail = stage.thing(COLORS[color])
    for part, fill in ((hull, stage.thing((116, 68, 38))), (big_sail, sail), (small_sail, sail)):
        canvas.polygon([(x + dx * side, y + dy * side) for dx, dy in part], fill=fill)
