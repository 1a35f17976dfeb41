"""Every family's own pipelines, with random weights: what is asked reaches them, by its name."""

from collections.abc import Mapping
from copy import copy
from functools import wraps
from pathlib import Path
from typing import Any

import diffusers
import pytest
from PIL import Image

from darkroom.catalog import Model
from darkroom.errors import ModelUnavailable
from darkroom.families import FAMILIES, FLOW_SCHEDULERS, FamilyName
from darkroom.generation import Generation
from tests.worker.engines.asking import GIVEN, ask, farthest, png, run
from tests.worker.engines.conftest import make_model, no_loras
from tests.worker.engines.tiny_families import save_tiny
from worker.engines.base import GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine

KINDS: Mapping[str, dict[str, Any]] = {
    "text_to_image": {},
    "image_to_image": {"image": GIVEN, "strength": 0.6},
    "inpainting": {"image": GIVEN, "mask_image": GIVEN, "strength": 0.8},
}
FILES: Mapping[str, dict[str, Any]] = {
    "text_to_image": {},
    "image_to_image": {"image": png((200, 40, 40))},
    "inpainting": {"image": png((200, 40, 40)), "mask_image": png(255)},
}
EACH = pytest.mark.parametrize("family", FAMILIES)
EACH_FLOW = pytest.mark.parametrize("family", [one for one in FAMILIES if FAMILIES[one].is_flow])
EACH_KIND = pytest.mark.parametrize(
    ("family", "kind"), [(name, kind) for name in FAMILIES for kind in FAMILIES[name].pipelines]
)


def entry(family: FamilyName, **fields: Any) -> Model:
    """The catalog entry of a tiny model, called as its family is."""
    scheduler = "FlowMatchEulerDiscreteScheduler"
    if not FAMILIES[family].is_flow:
        scheduler = "EulerDiscreteScheduler"
    kinds = tuple(FAMILIES[family].pipelines)
    return make_model(name=family, family=family, kinds=kinds, scheduler=scheduler, **fields)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[FamilyName, Path]:
    """A folder of each family."""
    return {name: save_tiny(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


@pytest.fixture(scope="module")
def engine(folders: dict[FamilyName, Path]) -> DiffusersEngine:
    """One engine that holds a model of every family at once."""
    engine = DiffusersEngine("cpu", no_loras)
    for name, folder in folders.items():
        engine.load(entry(name), folder)
    return engine


def ask_for(family: FamilyName, kind: str = "text_to_image", **fields: Any) -> Generation:
    base = {"model": family, "scheduler": entry(family).scheduler, "num_inference_steps": 2}
    return ask(**{**base, **KINDS[kind], **fields})


def made(engine: DiffusersEngine, *asked: Generation) -> list[list[Image.Image]]:
    return run(engine, *asked, **FILES[asked[0].kind])


@EACH_KIND
def test_a_seed_fixes_its_picture_whatever_the_batch(
    engine: DiffusersEngine, family: FamilyName, kind: str
) -> None:
    alone = made(engine, ask_for(family, kind, seed=5))[0][0]
    again = made(engine, ask_for(family, kind, seed=5))[0][0]
    mates = made(
        engine,
        ask_for(family, kind, seed=1, prompt="a long blue sea with many little boats at night"),
        ask_for(family, kind, seed=3, num_images=7),
    )
    assert alone.size == (64, 64)
    assert farthest(alone, again) == 0
    assert farthest(alone, mates[1][2]) <= 1
    assert farthest(alone, mates[1][3]) > 1


@EACH
@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "zzz blue sea"},
        {"negative_prompt": "red"},
        {"guidance_scale": 9.0},
        {"num_inference_steps": 3},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_asked_changes_the_picture(
    engine: DiffusersEngine, family: FamilyName, changed: dict[str, Any]
) -> None:
    ((plain,),) = made(engine, ask_for(family))
    ((other,),) = made(engine, ask_for(family, **changed))
    assert farthest(plain, other) > 1


class Heard:
    """What pipelines were called with, of any class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = ""
        self.call: dict[str, Any] = {}
        for family in FAMILIES.values():
            for name in family.pipelines.values():
                self._listen(monkeypatch, getattr(diffusers, name))

    def _listen(self, monkeypatch: pytest.MonkeyPatch, pipeline_class: Any) -> None:
        really = pipeline_class.__call__

        def heard(pipeline: Any, **call: Any) -> Any:
            self.name = type(pipeline).__name__
            self.call = {name: copy(value) for name, value in call.items()}
            return really(pipeline, **call)

        monkeypatch.setattr(pipeline_class, "__call__", wraps(really)(heard))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    return Heard(monkeypatch)


@EACH_KIND
def test_each_parameter_has_the_name_that_its_pipeline_gives_it(
    engine: DiffusersEngine, heard: Heard, family: FamilyName, kind: str
) -> None:
    one = ask_for(family, kind, seed=7, num_images=2)
    two = ask_for(family, kind, seed=9, prompt="a tree")
    made(engine, one, two)
    assert heard.name == FAMILIES[family].pipelines[kind]
    call = heard.call
    assert call["prompt"] == ["a red square", "a red square", "a tree"]
    assert [seed.initial_seed() for seed in call["generator"]] == [7, 8, 9]
    assert call["num_inference_steps"] == 2
    if family.startswith("stable-diffusion") and kind == "image_to_image" and "3" not in family:
        assert "width" not in call  # it makes pictures as large as the one it is given
    else:
        assert (call["width"], call["height"]) == (64, 64)
    assert call.get("strength") == KINDS[kind].get("strength")
    for field in ("image", "mask_image"):
        assert [picture.size for picture in call.get(field, [])] == [(64, 64)] * (
            3 if field in FILES[kind] else 0
        )


@pytest.mark.parametrize(
    ("family", "scale", "negative", "passed"),
    [
        ("stable-diffusion", 4.0, "", {"guidance_scale": 4.0}),
        ("stable-diffusion", 4.0, "fog", {"guidance_scale": 4.0, "negative_prompt": ["fog"]}),
        ("stable-diffusion", 1.0, "fog", {"guidance_scale": 1.0}),
        ("stable-diffusion-xl", 4.0, "fog", {"guidance_scale": 4.0, "negative_prompt": ["fog"]}),
        ("stable-diffusion-3", 4.0, "fog", {"guidance_scale": 4.0, "negative_prompt": ["fog"]}),
        ("flux", 3.5, "", {"guidance_scale": 3.5}),
        (
            "flux",
            3.5,
            "fog",
            {"guidance_scale": 1.0, "true_cfg_scale": 3.5, "negative_prompt": ["fog"]},
        ),
        ("flux", 1.0, "fog", {"guidance_scale": 1.0}),
        ("qwen-image", 4.0, "", {"true_cfg_scale": 4.0, "negative_prompt": [" "]}),
        ("qwen-image", 4.0, "fog", {"true_cfg_scale": 4.0, "negative_prompt": ["fog"]}),
        ("qwen-image", 1.0, "fog", {"true_cfg_scale": 1.0}),
        ("z-image", 0.0, "fog", {"guidance_scale": 0.0}),
        ("z-image", 0.5, "", {"guidance_scale": 0.5}),
        ("z-image", 0.5, "fog", {"guidance_scale": 0.5, "negative_prompt": ["fog"]}),
    ],
)
def test_guidance_is_passed_as_the_family_means_it(
    engine: DiffusersEngine,
    heard: Heard,
    family: FamilyName,
    scale: float,
    negative: str,
    passed: dict[str, Any],
) -> None:
    made(engine, ask_for(family, guidance_scale=scale, negative_prompt=negative))
    names = ("guidance_scale", "true_cfg_scale", "negative_prompt")
    told = {name: heard.call[name] for name in names if name in heard.call}
    assert told == passed


def test_where_guidance_is_distilled_mates_with_a_negative_prompt_change_nothing(
    engine: DiffusersEngine,
) -> None:
    plain, foggy = ask_for("flux", seed=5), ask_for("flux", seed=6, negative_prompt="fog")
    told: list[tuple[int, int]] = []
    alone = [made(engine, one)[0][0] for one in (plain, foggy)]
    tasks = [GenerationTask(one) for one in (foggy, plain, foggy)]
    together = engine.generate(tasks, lambda step, total, _: told.append((step, total)))
    for (picture,), expected in zip(together, (alone[1], alone[0], alone[1]), strict=True):
        assert farthest(picture, expected) <= 1
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@EACH_KIND
def test_the_last_preview_shows_each_tasks_first_picture(
    engine: DiffusersEngine, family: FamilyName, kind: str
) -> None:
    seen: list[list[Image.Image]] = []
    tasks = [
        GenerationTask(ask_for(family, kind, seed=count, num_images=count), **FILES[kind])
        for count in (2, 1)
    ]
    pictures = engine.generate(tasks, lambda step, total, preview: seen.append(preview()))
    for shown, (first, *_) in zip(seen[-1], pictures, strict=True):
        assert farthest(shown, first) <= 1
    assert farthest(*seen[-1]) > 1
    assert len(seen) == 1 or farthest(seen[0][0], seen[-1][0]) > 1


@EACH
def test_a_preview_has_no_side_over_256_pixels(engine: DiffusersEngine, family: FamilyName) -> None:
    sizes: list[tuple[int, int]] = []

    def look(step: int, total: int, preview: Preview) -> None:
        sizes.extend(picture.size for picture in preview())

    engine.generate([GenerationTask(ask_for(family, width=320, num_inference_steps=1))], look)
    assert sizes == [(160, 32)]


@pytest.mark.parametrize("family", ["stable-diffusion", "flux"])
def test_only_the_pictures_that_are_asked_for_are_made(
    engine: DiffusersEngine, family: FamilyName
) -> None:
    asked = ask_for(family, seed=3, num_images=4)
    (whole,) = made(engine, asked)
    ((third, first), (second,)) = engine.generate(
        [GenerationTask(asked, pictures=(2, 0)), GenerationTask(asked, pictures=(1,))],
        lambda *_: None,
    )
    assert farthest(third, whole[2]) <= 1
    assert farthest(first, whole[0]) <= 1
    assert farthest(second, whole[1]) <= 1


@EACH_FLOW
@pytest.mark.parametrize("name", sorted(FLOW_SCHEDULERS))
def test_each_flow_scheduler_runs_each_flow_family(
    engine: DiffusersEngine, family: FamilyName, name: str
) -> None:
    ((picture,),) = made(engine, ask_for(family, scheduler=name))
    assert picture.size == (64, 64)


@EACH
def test_the_sides_are_what_the_pipeline_makes_of_them(
    engine: DiffusersEngine, family: FamilyName
) -> None:
    step = FAMILIES[family].side_multiple
    asked = ask_for(family, width=64 + step, height=64 + 3 * step, num_inference_steps=1)
    ((picture,),) = made(engine, asked)
    assert picture.size == (64 + step, 64 + 3 * step)


@EACH
def test_the_files_say_before_a_load_what_it_will_take(
    engine: DiffusersEngine, folders: dict[FamilyName, Path], family: FamilyName
) -> None:
    exact = engine.footprint(family)
    expected = DiffusersEngine("cpu", no_loras).expect(entry(family), folders[family])
    assert exact.host_bytes == expected.host_bytes == 0
    assert expected.device_bytes == pytest.approx(exact.device_bytes, rel=0.001)


@EACH
def test_files_of_another_family_are_unavailable(
    folders: dict[FamilyName, Path], family: FamilyName
) -> None:
    other: FamilyName = "flux" if family != "flux" else "z-image"
    with pytest.raises(ModelUnavailable, match=f"the catalog says {family}"):
        DiffusersEngine("cpu", no_loras).load(entry(family), folders[other])
