"""The world that the demo model learns: specs, words and the checker that judges pictures."""

import random

import numpy as np
import pytest

from models.demo.captions import FACTS, canonical, paraphrase
from models.demo.checker import check, describe
from models.demo.drawing import draw
from models.demo.wording import with_stray_words
from models.demo.world import KINDS, Figure, Pair, Single, held_out, sample_spec


@pytest.mark.parametrize("kind", KINDS)
def test_the_checker_recognises_drawn_originals(kind: str) -> None:
    rng = random.Random(11)
    specs = [sample_spec(rng, kind, want_held_out=True) for _ in range(60)]
    answers = [check(spec, draw(spec, rng)) for spec in specs]
    for name in answers[0]:
        right = [answer[name] for answer in answers if name in answer]
        assert np.mean(right) >= 0.97, f"{kind}: {name}"


def test_the_checker_tells_what_a_picture_shows_without_being_told() -> None:
    spec = Single(Figure("square", "blue"), "yellow", "medium")
    found = describe(draw(spec, random.Random(0)))
    assert found.background == "yellow"
    assert [(figure.shape, figure.color) for figure in found.figures] == [("square", "blue")]


def test_the_checker_refuses_a_picture_of_something_else() -> None:
    shown = Pair(Figure("star", "red"), Figure("circle", "green"), "above", "white")
    swapped = Pair(Figure("circle", "red"), Figure("star", "green"), "above", "white")
    upside_down = Pair(Figure("circle", "green"), Figure("star", "red"), "above", "white")
    picture = draw(shown, random.Random(1))
    assert check(shown, picture)["all"]
    assert not check(swapped, picture)["relation_with_shapes"]
    assert not check(upside_down, picture)["relation"]
    assert not check(Single(Figure("star", "red"), "white", "medium"), picture)["count"]


def test_an_empty_picture_holds_no_figure() -> None:
    spec = Single(Figure("heart", "pink"), "black", "medium")
    blank = draw(spec, random.Random(2)).crop((0, 0, 8, 8)).resize((128, 128))
    answers = check(spec, blank)
    assert answers["background"]
    assert not answers["count"]
    assert not answers["color"]


def test_training_specs_and_held_out_specs_never_meet() -> None:
    rng = random.Random(3)
    assert not any(held_out(sample_spec(rng)) for _ in range(300))
    assert all(held_out(sample_spec(rng, want_held_out=True)) for _ in range(300))


def test_every_fact_of_a_caption_has_its_place_among_the_known_facts() -> None:
    rng = random.Random(4)
    for _ in range(500):
        caption = paraphrase(sample_spec(rng), rng)
        assert caption.text
        for name, value in caption.facts.items():
            assert value in FACTS[name]


def test_the_canonical_words_name_color_shape_and_background() -> None:
    assert (
        canonical(Single(Figure("square", "orange"), "yellow", "big"))
        == "a big orange square on a yellow background"
    )


def test_stray_words_leave_the_description_itself_whole() -> None:
    rng = random.Random(5)
    for _ in range(50):
        assert "a red circle" in with_stray_words("a red circle", rng)


def test_the_same_seed_draws_the_same_picture() -> None:
    spec = sample_spec(random.Random(6))
    first, second = (np.asarray(draw(spec, random.Random(7), 96, 64)) for _ in range(2))
    assert first.shape == (64, 96, 3)
    assert np.array_equal(first, second)
