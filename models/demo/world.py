"""What the demo model can draw: figures on a coloured ground, and small landscapes.

A *spec* is a frozen value that names everything a picture shows. ``sample_spec`` draws one at
random; ``held_out`` says which combinations training never sees, so that the evaluation asks for
things the model has to compose by itself.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Rgb = tuple[int, int, int]

COLORS: Final[dict[str, Rgb]] = {
    "red": (218, 34, 40),
    "orange": (248, 134, 22),
    "yellow": (252, 218, 44),
    "green": (36, 156, 62),
    "blue": (36, 78, 214),
    "purple": (126, 46, 176),
    "pink": (250, 142, 194),
    "brown": (118, 70, 36),
    "black": (20, 20, 24),
    "white": (250, 250, 250),
    "gray": (140, 142, 146),
    "cyan": (58, 204, 224),
}
COLOR_NAMES: Final = tuple(COLORS)
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "diamond")
SIZES: Final = ("small", "medium", "big")
RELATIONS: Final = ("left", "above")
TIMES: Final = ("day", "night", "sunset")
GROUNDS: Final = ("field", "sea", "snow", "desert")
HOUSES: Final = ("red", "blue", "yellow", "white", "pink", "orange", "purple")
TREES: Final = ("round", "pine", "cactus")
SAILS: Final = ("white", "red", "yellow")
TREES_OF: Final[dict[str, tuple[str, ...]]] = {
    "field": ("round", "round", "pine"),
    "snow": ("pine", "round"),
    "desert": ("cactus", "cactus", "round"),
    "sea": (),
}
HELD_OUT_ONE_IN: Final = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """One flat figure: a shape of one colour."""

    shape: str
    color: str


@dataclass(frozen=True, slots=True)
class Single:
    """One figure on a plain ground."""

    figure: Figure
    background: str
    size: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two figures on a plain ground; ``first`` is left of, or above, ``second``."""

    first: Figure
    second: Figure
    relation: str
    background: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A landscape; an absent house, tree or boat is None."""

    time: str
    ground: str
    house: str | None
    tree: str | None
    boat: str | None
    mountains: bool
    clouds: bool
    orb: bool


Spec = Single | Pair | Scene
KINDS: Final[dict[str, type[Single] | type[Pair] | type[Scene]]] = {
    "single": Single,
    "pair": Pair,
    "scene": Scene,
}


def kind_of(spec: Spec) -> str:
    """Name of the family a spec belongs to: single, pair or scene."""
    return next(name for name, cls in KINDS.items() if isinstance(spec, cls))


def held_out(spec: Spec) -> bool:
    """True for the eighth of all combinations that training never sees."""
    key: tuple[object, ...]
    if isinstance(spec, Single):
        key = (spec.figure.shape, spec.figure.color, spec.background)
    elif isinstance(spec, Pair):
        names = sorted((f.color, f.shape) for f in (spec.first, spec.second))
        key = (names[0], names[1])
    else:
        key = (spec.time, spec.ground, spec.house, spec.tree, spec.mountains)
    return zlib.crc32(repr(key).encode()) % HELD_OUT_ONE_IN == 0


def sample_spec(
    rng: random.Random, kind: str | None = None, *, want_held_out: bool = False
) -> Spec:
    """Draw a spec of ``kind`` (any, when None) from the training or the held-out part."""
    samplers: dict[str, Callable[[random.Random], Spec]] = {
        "single": _single,
        "pair": _pair,
        "scene": _scene,
    }
    while True:
        chosen = kind or rng.choices(list(samplers), [0.14, 0.24, 0.62])[0]
        spec = samplers[chosen](rng)
        if held_out(spec) == want_held_out:
            return spec


def _figure(rng: random.Random, background: str) -> Figure:
    color = rng.choice([name for name in COLOR_NAMES if name != background])
    return Figure(rng.choice(SHAPES), color)


def _background(rng: random.Random) -> str:
    # White is what a caption without a background means, so it has to be common.
    return "white" if rng.random() < 0.2 else rng.choice(COLOR_NAMES)


def _single(rng: random.Random) -> Single:
    background = _background(rng)
    size = rng.choices(SIZES, [0.16, 0.66, 0.18])[0]
    return Single(_figure(rng, background), background, size)


def _pair(rng: random.Random) -> Pair:
    background = _background(rng)
    first, second = _figure(rng, background), _figure(rng, background)
    return Pair(first, second, rng.choice(RELATIONS), background)


def _scene(rng: random.Random) -> Scene:
    ground = rng.choice(GROUNDS)
    at_sea = ground == "sea"
    return Scene(
        time=rng.choice(TIMES),
        ground=ground,
        house=rng.choice(HOUSES) if not at_sea and rng.random() < 0.68 else None,
        tree=rng.choice(TREES_OF[ground]) if not at_sea and rng.random() < 0.55 else None,
        boat=rng.choice(SAILS) if at_sea and rng.random() < 0.65 else None,
        mountains=rng.random() < 0.35,
        clouds=rng.random() < 0.3,
        orb=rng.random() < 0.65,
    )
