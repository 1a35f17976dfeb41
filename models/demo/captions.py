"""Word a spec: the full canonical description, or one of its many paraphrases.

A caption is a text and the *facts* that it states. The facts are what the text encoder learns to
read (``text``); a fact that the words leave open is ``UNSAID``.
"""

import random
from dataclasses import dataclass
from typing import Final

from models.demo import wording
from models.demo.wording import UNSAID, with_article
from models.demo.world import (
    COLOR_NAMES,
    GROUNDS,
    HOUSES,
    RELATIONS,
    SAILS,
    SHAPES,
    SIZES,
    TIMES,
    TREES,
    Figure,
    Pair,
    Scene,
    Single,
    Spec,
)

FACTS: Final[dict[str, tuple[str, ...]]] = {
    "kind": (UNSAID, "single", "pair", "scene"),
    "background": (UNSAID, *COLOR_NAMES),
    "first_shape": (UNSAID, *SHAPES),
    "first_color": (UNSAID, *COLOR_NAMES),
    "second_shape": (UNSAID, *SHAPES),
    "second_color": (UNSAID, *COLOR_NAMES),
    "relation": (UNSAID, *RELATIONS),
    "size": (UNSAID, *SIZES),
    "time": (UNSAID, *TIMES),
    "ground": (UNSAID, *GROUNDS),
    "house": (UNSAID, "some", *HOUSES),
    "tree": (UNSAID, *TREES),
    "boat": (UNSAID, "some", *SAILS),
    "mountains": (UNSAID, "yes"),
    "clouds": (UNSAID, "yes"),
    "orb": (UNSAID, "yes"),
}
PARTIAL_SHARE: Final = 0.12
STRAY_WORDS_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Caption:
    """A text and what it states: a value of ``FACTS`` for each fact that is not left open."""

    text: str
    facts: dict[str, str]


NOTHING: Final = Caption("", {})


def canonical(spec: Spec) -> str:
    """The full description of ``spec`` in the plainest words; the evaluation prompts with it."""
    if isinstance(spec, Single):
        size = "" if spec.size == "medium" else f"{spec.size} "
        figure = with_article(f"{size}{spec.figure.color} {spec.figure.shape}")
        return f"{figure} on {with_article(spec.background)} background"
    if isinstance(spec, Pair):
        first, second = (with_article(f"{f.color} {f.shape}") for f in (spec.first, spec.second))
        between = {"left": "to the left of", "above": "above"}[spec.relation]
        return f"{first} {between} {second} on {with_article(spec.background)} background"
    return _scene(spec, None).text


def paraphrase(spec: Spec, rng: random.Random) -> Caption:
    """One natural way to ask for ``spec``: other words, some facts dropped, stray words around."""
    if isinstance(spec, Single):
        caption = _single(spec, rng)
    elif isinstance(spec, Pair):
        caption = _pair(spec, rng)
    else:
        partial = rng.random() < PARTIAL_SHARE
        caption = _partial_scene(spec, rng) if partial else _scene(spec, rng)
    text = caption.text
    if rng.random() < 0.4:
        text = rng.choice(wording.OPENINGS) + text
    if rng.random() < 0.25:
        text += rng.choice(wording.ENDINGS)
    if rng.random() < STRAY_WORDS_SHARE:
        text = wording.with_stray_words(text, rng)
    return Caption(text, caption.facts)


def _named(figure: Figure, rng: random.Random, size: str = "") -> str:
    """Noun phrase for a figure without its article."""
    color, shape = wording.synonym(figure.color, rng), wording.synonym(figure.shape, rng)
    return " ".join(word for word in (size, color, shape) if word)


def _on_background(text: str, color: str, rng: random.Random, facts: dict[str, str]) -> str:
    """``text`` with a background clause; seldom without one, often when it is white."""
    if rng.random() < (0.4 if color == "white" else 0.06):
        return text
    facts["background"] = color
    name = wording.synonym(color, rng)
    word = rng.choice(wording.BACKGROUND_WORDS)
    form = rng.choice(wording.BACKGROUND_FORMS)
    return form.format(text=text, color=name, a_color=with_article(name), word=word)


def _single(spec: Single, rng: random.Random) -> Caption:
    facts = {"kind": "single", "first_shape": spec.figure.shape, "first_color": spec.figure.color}
    size = ""
    if spec.size != "medium" and rng.random() < 0.8:
        facts["size"] = spec.size
        size = wording.synonym(spec.size, rng)
    if rng.random() < PARTIAL_SHARE:
        return _partial_single(spec, size, facts, rng)
    noun = _named(spec.figure, rng, size)
    figure = rng.choice(
        [with_article(noun), with_article(noun), noun, f"the {noun}", f"one {noun}"]
    )
    return Caption(_on_background(figure, spec.background, rng, facts), facts)


def _partial_single(spec: Single, size: str, facts: dict[str, str], rng: random.Random) -> Caption:
    if rng.random() < 0.5:
        del facts["first_color"]
        noun = f"{size} {wording.synonym(spec.figure.shape, rng)}".strip()
    else:
        del facts["first_shape"]
        color, noun = wording.synonym(spec.figure.color, rng), rng.choice(wording.ANY_SHAPE)
        noun = f"{size} {color} {noun}".strip()
    return Caption(_on_background(with_article(noun), spec.background, rng, facts), facts)


def _pair(spec: Pair, rng: random.Random) -> Caption:
    facts = {
        "kind": "pair",
        "first_shape": spec.first.shape,
        "first_color": spec.first.color,
        "second_shape": spec.second.shape,
        "second_color": spec.second.color,
        "relation": spec.relation,
    }
    first, second = _named(spec.first, rng), _named(spec.second, rng)
    if rng.random() < 0.8:
        first, second = with_article(first), with_article(second)
    form = rng.choice(wording.PAIR_FORMS[spec.relation])
    text = form.format(first=first, second=second)
    return Caption(_on_background(text, spec.background, rng, facts), facts)


def _things(scene: Scene, rng: random.Random | None, facts: dict[str, str]) -> list[str]:
    things = []
    if scene.house:
        facts["house"] = scene.house
        things.append(with_article(f"{wording.synonym(scene.house, rng)} house"))
        if rng and rng.random() < 0.06:
            facts["house"] = "some"
            things = ["a house"]
    if scene.tree:
        facts["tree"] = scene.tree
        things.append(wording.pick(wording.TREE_NAMES[scene.tree], rng))
    if scene.boat:
        facts["boat"] = scene.boat
        form = wording.pick(wording.BOAT_NAMES, rng)
        if rng and rng.random() < 0.1:
            facts["boat"], form = "some", rng.choice(["a sailboat", "a boat"])
        things.append(form.format(a_color=with_article(scene.boat), color=scene.boat))
    if rng:
        rng.shuffle(things)
    return things


def _scene(scene: Scene, rng: random.Random | None) -> Caption:
    """Full wording of a landscape; the canonical one when ``rng`` is None."""
    facts = {"kind": "scene", "time": scene.time, "ground": scene.ground}
    things = _things(scene, rng, facts)
    if things:
        text = " and ".join(things) + wording.pick(wording.GROUND_CLAUSES[scene.ground], rng)
    else:
        text = wording.pick(wording.GROUND_NAMES[scene.ground], rng)
    if scene.mountains:
        facts["mountains"] = "yes"
        text += wording.pick(wording.MOUNTAIN_CLAUSES, rng)
    text += wording.pick(wording.TIME_CLAUSES[scene.time], rng)
    extras = []
    if scene.orb and (rng is None or rng.random() < 0.75):
        facts["orb"] = "yes"
        extras.append(wording.pick(wording.ORB_NAMES[scene.time], rng))
    if scene.clouds and (rng is None or rng.random() < 0.75):
        facts["clouds"] = "yes"
        extras.append(wording.pick(("clouds", "a cloud", "white clouds"), rng))
    if scene.time == "night" and rng and rng.random() < 0.25:
        extras.append(rng.choice(["stars", "a starry sky", "stars in the sky"]))
    if extras:
        text += wording.pick((", with ", " with ", " and "), rng) + " and ".join(extras)
    return Caption(text, facts)


def _partial_scene(scene: Scene, rng: random.Random) -> Caption:
    """A landscape of which only one or two facts are told."""
    facts = {"kind": "scene"}
    things = _things(scene, rng, facts)
    ground = wording.pick(wording.GROUND_NAMES[scene.ground], rng)
    time = wording.pick(wording.TIME_CLAUSES[scene.time], rng)
    if things and rng.random() < 0.6:
        text = " and ".join(things)
        if rng.random() < 0.6:
            text, facts["time"] = text + time, scene.time
        return Caption(text, facts)
    facts = {"kind": "scene"}
    if rng.random() < 0.5:
        return Caption(ground, facts | {"ground": scene.ground})
    noun = rng.choice(["a landscape", "landscape", "a scene", "scenery"])
    return Caption(noun + time, facts | {"time": scene.time})
