"""The model that ships, on the engine: what is promised of every seed and every preview."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.catalog import load_catalog
from darkroom.generation import Generation
from tests.worker.engines.asking import GIVEN, ask, colour, farthest, pixels, quiet, run
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


def test_inpainting_repaints_what_the_mask_says(demo: DiffusersEngine) -> None:
    start = Image.new("RGB", (128, 128), (200, 180, 40))
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 128, 56))
    asked = draw("a blue sea at night", 5).model_copy(
        update={"image": GIVEN, "mask_image": GIVEN, "strength": 1.0}
    )
    ((made,),) = run(demo, asked, image=_file(start), mask_image=_file(mask))
    change = np.abs(pixels(made) - pixels(start)).mean(-1)
    assert change[72:].mean() < 8
    assert change[:48].mean() > 40


def _file(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


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


@pytest.mark.parametrize(
    "scheduler", ["DPMSolverMultistep", "DDIM", "EulerDiscrete", "UniPCMultistep"]
)
def test_half_way_a_preview_shows_the_picture_and_not_its_noise(
    demo: DiffusersEngine, scheduler: str
) -> None:
    seen: list[Image.Image] = []

    def look(step: int, total: int, preview: Preview) -> None:
        if 2 * step == total:
            seen.extend(preview())

    changes = {"scheduler": f"{scheduler}Scheduler", "num_inference_steps": 8}
    asked = draw("a blue square on a yellow background", 7).model_copy(update=changes)
    ((made,),) = demo.generate([GenerationTask(asked)], look)
    apart = np.abs(pixels(seen[0]) - pixels(made)).mean()
    assert apart < 12, apart
