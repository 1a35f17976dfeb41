"""The model that ships, on the engine: what is promised of every seed and every preview."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.catalog import load_catalog
from darkroom.generation import Generation
from tests.worker.engines.asking import ask, colour, farthest, quiet
from tests.worker.engines.conftest import no_loras
from worker.engines.base import GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine

CATALOG = Path(__file__).parents[3] / "models" / "catalog.yaml"


@pytest.fixture(scope="module")
def demo() -> DiffusersEngine:
    catalog = load_catalog(CATALOG)
    engine = DiffusersEngine("cpu", no_loras)
    engine.load(catalog.model("demo"), catalog.folder / catalog.model("demo").source)
    return engine


def draw(prompt: str, seed: int, count: int = 1, side: int = 128) -> Generation:
    """Ask as the catalog's defaults do, in fewer steps."""
    scheduler = load_catalog(CATALOG).model("demo").scheduler
    return ask(
        model="demo",
        prompt=prompt,
        seed=seed,
        num_images=count,
        width=side,
        height=side,
        num_inference_steps=5,
        guidance_scale=2.0,
        scheduler=scheduler,
    )


def test_a_seed_gives_its_picture_alone_and_among_eight(demo: DiffusersEngine) -> None:
    ((alone,),) = demo.generate([GenerationTask(draw("a red square", 5))], quiet)
    mates = [draw("a green field at night with a house", 1, 2), draw("a red square", 3, 5)]
    mates.append(draw("a blue star", 7))
    _, five, _ = demo.generate([GenerationTask(one) for one in mates], quiet)
    assert farthest(alone, five[2]) <= 1
    assert farthest(alone, five[3]) > 30


@pytest.mark.parametrize(("side", "small_side"), [(128, 128), (320, 160)])
def test_the_last_preview_has_the_colours_of_the_picture(
    demo: DiffusersEngine, side: int, small_side: int
) -> None:
    seen: list[list[Image.Image]] = []

    def look(step: int, total: int, preview: Preview) -> None:
        if step == total:
            seen.append(preview())

    asked = [draw("a red square", 5, side=side), draw("a green field at night", 6, side=side)]
    pictures = demo.generate([GenerationTask(one) for one in asked], look)
    for small, (first,) in zip(seen[0], pictures, strict=True):
        assert small.size == (small_side, small_side)
        assert np.abs(colour(small) - colour(first)).max() < 4
    assert np.abs(colour(seen[0][0]) - colour(seen[0][1])).max() > 20
