"""Say what a picture shows: figures and ground, or the parts of a landscape.

Needs NumPy and Pillow alone. ``describe`` reads a picture without knowing what was asked for;
``check`` compares a picture with the spec that was asked for and answers yes or no per attribute.
"""

from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from models.demo.drawing import outline
from models.demo.landscape import (
    GROUND,
    GROUND_FADE,
    LEAVES,
    LIGHT_ON_GROUND,
    LIGHT_ON_THINGS,
    ROOF,
    SKY,
    lit,
)
from models.demo.world import (
    COLOR_NAMES,
    COLORS,
    GROUNDS,
    HOUSES,
    SHAPES,
    TIMES,
    Figure,
    Pair,
    Scene,
    Single,
    Spec,
)

_FOREGROUND_DISTANCE: Final = 16.0  # CIE76 difference that the eye sees at a glance
_LEAST_AREA: Final = 0.008  # share of the picture below which a blot is no figure
_LEAST_OVERLAP: Final = 0.72  # intersection over union with the best template
_MASK_SIDE: Final = 32
_ROUNDINGS: Final = (0, 8)  # blur radii, in pixels of a figure 200 wide


@dataclass(frozen=True, slots=True)
class FoundFigure:
    """A figure that a picture shows; positions and area are shares of the picture."""

    shape: str
    color: str
    x: float
    y: float
    area: float


@dataclass(frozen=True, slots=True)
class Finding:
    """The ground's colour and the figures on it, the largest first."""

    background: str
    figures: tuple[FoundFigure, ...]


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB values 0..255 in the last axis (IEC 61966-2-1, CIE 15)."""
    linear: np.ndarray = np.asarray(rgb, float) / 255
    linear = np.where(linear > 0.04045, ((linear + 0.055) / 1.055) ** 2.4, linear / 12.92)
    matrix = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [
            116 * f[..., 1] - 16,
            500 * (f[..., 0] - f[..., 1]),
            200 * (f[..., 1] - f[..., 2]),
        ],
        -1,
    )


def color_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CIE76 colour difference of sRGB values 0..255."""
    distance: np.ndarray = np.sqrt(((to_lab(first) - to_lab(second)) ** 2).sum(-1))
    return distance


def color_name(rgb: np.ndarray) -> str:
    """Name of the palette's colour that looks most like ``rgb`` (0..255)."""
    palette = np.array([COLORS[name] for name in COLOR_NAMES], float)
    return COLOR_NAMES[int(np.argmin(color_distance(palette, np.asarray(rgb, float))))]


def describe(image: Image.Image) -> Finding:
    """What a picture of flat figures on a plain ground shows."""
    array = np.asarray(image.convert("RGB"), float)
    ground = _border_color(array)
    figures = [_found(array, mask) for mask in _figure_masks(color_distance(array, ground))]
    figures.sort(key=lambda figure: -figure.area)
    return Finding(color_name(ground), tuple(figures))


def _border_color(array: np.ndarray) -> np.ndarray:
    edge = max(1, min(array.shape[:2]) // 32)
    strips = (array[:edge], array[-edge:], array[:, :edge], array[:, -edge:])
    color: np.ndarray = np.median(np.concatenate([s.reshape(-1, 3) for s in strips]), 0)
    return color


def _figure_masks(distance: np.ndarray) -> list[np.ndarray]:
    """A mask for each figure, given how far each pixel's colour is from the ground's.

    An edge runs where the colour is half way to the figure's, so that a soft edge or a faint
    shadow between two figures belongs to neither.
    """
    masks = []
    for blot in _blots(distance > _FOREGROUND_DISTANCE):
        half_way = float(np.median(distance[blot])) / 2
        masks += _blots(blot & (distance > half_way))
    return masks


def _blots(mask: np.ndarray) -> list[np.ndarray]:
    """The 4-connected parts of ``mask`` that are large enough to be figures."""
    height, width = mask.shape
    left = mask.copy()
    parts = []
    for start in zip(*np.nonzero(mask), strict=True):
        if not left[start]:
            continue
        left[start] = False
        queue, part = deque([start]), np.zeros_like(mask)
        while queue:
            y, x = queue.popleft()
            part[y, x] = True
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= near[0] < height and 0 <= near[1] < width and left[near]:
                    left[near] = False
                    queue.append(near)
        if part.mean() >= _LEAST_AREA:
            parts.append(part)
    return parts


def _found(array: np.ndarray, mask: np.ndarray) -> FoundFigure:
    rows, columns = np.nonzero(mask)
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    color = np.median(array[inner if inner.any() else mask], 0)
    height, width = mask.shape
    return FoundFigure(
        shape=shape_name(mask),
        color=color_name(color),
        x=float(columns.mean()) / width,
        y=float(rows.mean()) / height,
        area=float(mask.mean()),
    )


def shape_name(blot: np.ndarray) -> str:
    """The shape whose template overlaps ``blot`` most, or "none" when none does well."""
    found = _normalised(blot)
    overlap = {
        shape: max(float((found & mask).sum() / (found | mask).sum()) for mask in masks)
        for shape, masks in _templates().items()
    }
    best = max(overlap, key=lambda shape: overlap[shape])
    return best if overlap[best] >= _LEAST_OVERLAP else "none"


def _normalised(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    cut = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    image = Image.fromarray((cut * 255).astype(np.uint8))
    small = image.resize((_MASK_SIDE, _MASK_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small) > 127


@cache
def _templates() -> dict[str, tuple[np.ndarray, ...]]:
    """Masks of each shape, sharp and with corners rounded: a soft star is still a star."""
    templates = {}
    for shape in SHAPES:
        image = Image.new("L", (256, 256), 0)
        ImageDraw.Draw(image).polygon(outline(shape, (128, 128), 100), fill=255)
        templates[shape] = tuple(
            _normalised(np.asarray(image.filter(ImageFilter.GaussianBlur(radius))) > 127)
            for radius in _ROUNDINGS
        )
    return templates


def check(spec: Spec, image: Image.Image) -> dict[str, bool]:
    """Attribute by attribute, whether ``image`` shows what ``spec`` asks for."""
    if isinstance(spec, Single):
        return _check_single(spec, describe(image))
    if isinstance(spec, Pair):
        return _check_pair(spec, describe(image))
    return check_scene(spec, np.asarray(image.convert("RGB"), float))


def _check_single(spec: Single, found: Finding) -> dict[str, bool]:
    largest = found.figures[0] if found.figures else None
    answers = {
        "background": found.background == spec.background,
        "count": len(found.figures) == 1,
        "color": largest is not None and largest.color == spec.figure.color,
        "shape": largest is not None and largest.shape == spec.figure.shape,
    }
    return answers | {"all": all(answers.values())}


def _check_pair(spec: Pair, found: Finding) -> dict[str, bool]:
    wanted = (spec.first, spec.second)
    got = _in_order(found, spec.relation)
    shown = [Figure(f.shape, f.color) for f in got]
    answers = {
        "background": found.background == spec.background,
        "count": len(found.figures) == 2,
        "color": sorted(f.color for f in shown) == sorted(f.color for f in wanted),
        "shape": sorted(f.shape for f in shown) == sorted(f.shape for f in wanted),
        "relation": len(got) == 2
        and _along(got, spec.relation)
        and [f.color for f in shown] == [f.color for f in wanted],
        "relation_with_shapes": len(got) == 2
        and _along(got, spec.relation)
        and tuple(shown) == wanted,
    }
    return answers | {"all": all(answers.values())}


def _in_order(found: Finding, relation: str) -> list[FoundFigure]:
    """The two largest figures, the left or the upper one first."""
    two = list(found.figures[:2])
    return sorted(two, key=lambda f: f.x if relation == "left" else f.y)


def _along(pair: list[FoundFigure], relation: str) -> bool:
    dx, dy = abs(pair[0].x - pair[1].x), abs(pair[0].y - pair[1].y)
    return dx > dy if relation == "left" else dy > dx


def check_scene(spec: Scene, array: np.ndarray) -> dict[str, bool]:
    """Answers for a landscape, ``array`` in 0..255."""
    answers = {
        "time": time_of(array) == spec.time,
        "ground": ground_of(array, spec.time) == spec.ground,
    }
    if spec.ground != "sea":
        house = house_in(array, spec.time)
        answers["house"] = (house is not None) == (spec.house is not None)
        if spec.house:
            answers["house_color"] = house == spec.house
        answers["tree"] = has_tree(array, spec.time) == (spec.tree is not None)
    return answers | {"all": all(answers.values())}


def time_of(array: np.ndarray) -> str:
    """Time of day, by the colour of the topmost twelfth."""
    sky = np.median(array[: max(1, len(array) // 12)].reshape(-1, 3), 0)
    return min(TIMES, key=lambda t: float(color_distance(np.array(SKY[t][0], float), sky)))


def ground_of(array: np.ndarray, time: str) -> str:
    """Kind of ground, by the colour of the lowest ninth."""
    low = np.median(array[-max(2, len(array) // 9) :].reshape(-1, 3), 0)

    def distance(ground: str) -> float:
        color = np.array(lit(GROUND[ground], LIGHT_ON_GROUND[time]), float)
        return float(color_distance(color * (1 - GROUND_FADE), low))

    return min(GROUNDS, key=distance)


def _share_like(array: np.ndarray, color: tuple[int, int, int], within: float) -> float:
    return float((color_distance(array, np.array(color, float)) < within).mean())


def house_in(array: np.ndarray, time: str) -> str | None:
    """Colour of the house's wall, None without a house; a roof makes a house."""
    light = LIGHT_ON_THINGS[time]
    height = len(array)
    band = array[int(height * 0.3) : int(height * 0.85)]
    roof = color_distance(band, np.array(lit(ROOF, light), float)) < 9
    if roof.mean() < 0.025:
        return None
    rows, columns = np.nonzero(roof)
    left, right = np.percentile(columns, [10, 90]).astype(int)
    foot = int(np.bincount(rows).argmax())  # the widest row of the roof: its eaves
    wall = band[foot + 2 : foot + 2 + height // 6, left : right + 1]
    if wall.size == 0:
        return None
    share = {name: _share_like(wall, lit(COLORS[name], light), 16) for name in HOUSES}
    return max(share, key=lambda name: share[name])


def has_tree(array: np.ndarray, time: str) -> bool:
    """Whether leaves (or a cactus) reach above the horizon, where no grass is."""
    height = len(array)
    band = array[int(height * 0.25) : int(height * 0.54)]
    return any(
        _share_like(band, lit(color, LIGHT_ON_THINGS[time]), 12) > 0.02 for color in LEAVES.values()
    )
