"""What every engine promises, the one that draws noise like the one that draws pictures."""

from pathlib import Path

import pytest
from PIL import Image

from darkroom.catalog import Model
from darkroom.errors import ModelUnavailable
from tests.worker.engines.asking import ask, farthest, quiet
from tests.worker.engines.conftest import make_model, no_loras
from worker.engines.base import Engine, Footprint, GenerationStopped, GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine
from worker.engines.fake import FakeEngine

QUICK = {"num_inference_steps": 2}
MODELS = [make_model(name=name) for name in ("tiny", "other")]


@pytest.fixture(params=["fake", "diffusers"])
def engine(request: pytest.FixtureRequest, tiny_folder: Path) -> Engine:
    engine: Engine = FakeEngine()
    if request.param == "diffusers":
        engine = DiffusersEngine("cpu", no_loras)
    for model in MODELS:
        engine.load(model, tiny_folder)
    return engine


def test_pictures_come_by_task_in_the_order_of_their_seeds(engine: Engine) -> None:
    many, one = ask(seed=3, num_images=3, **QUICK), ask(seed=4, **QUICK)
    (three, (alone,)) = engine.generate([GenerationTask(many), GenerationTask(one)], quiet)
    assert [picture.size for picture in (*three, alone)] == [(64, 64)] * 4
    assert farthest(three[1], alone) <= 1
    assert farthest(three[0], alone) > 1


def test_only_the_chosen_pictures_are_made_in_the_chosen_order(engine: Engine) -> None:
    asked = ask(seed=3, num_images=3, **QUICK)
    (all_three,) = engine.generate([GenerationTask(asked)], quiet)
    ((third, first),) = engine.generate([GenerationTask(asked, pictures=(2, 0))], quiet)
    assert farthest(third, all_three[2]) <= 1
    assert farthest(first, all_three[0]) <= 1


def test_each_step_is_told_with_a_small_picture_for_each_task(engine: Engine) -> None:
    told: list[tuple[int, int, list[Image.Image]]] = []
    tasks = [GenerationTask(ask(seed=seed, num_images=2, width=512, **QUICK)) for seed in (1, 5)]
    engine.generate(tasks, lambda step, total, preview: told.append((step, total, preview())))
    assert [(step, total) for step, total, _ in told] == [(1, 2), (2, 2)]
    for _, _, pictures in told:
        assert [picture.size for picture in pictures] == [(256, 32)] * 2
        assert farthest(*pictures) > 1


def test_a_call_that_was_stopped_leaves_the_engine_usable(engine: Engine) -> None:
    def stop(step: int, total: int, preview: Preview) -> None:
        raise GenerationStopped

    asked = GenerationTask(ask(**QUICK))
    with pytest.raises(GenerationStopped):
        engine.generate([asked], stop)
    assert engine.generate([asked], quiet)


@pytest.mark.parametrize("gone", ["park", "unload"])
def test_what_is_put_away_takes_nothing_and_comes_back_by_a_load(
    engine: Engine, tiny_folder: Path, gone: str
) -> None:
    before = engine.footprint("tiny")
    assert before.device_bytes > 0
    for _ in range(2):
        getattr(engine, gone)("tiny")
    assert engine.footprint("tiny") == Footprint()
    with pytest.raises(ModelUnavailable, match="tiny is not on the device"):
        engine.generate([GenerationTask(ask(**QUICK))], quiet)
    assert engine.generate([GenerationTask(ask(model="other", **QUICK))], quiet)
    engine.load(MODELS[0], tiny_folder)
    assert engine.footprint("tiny") == before
    assert engine.generate([GenerationTask(ask(**QUICK))], quiet)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_loading_again_and_expecting_a_held_model_change_nothing(
    engine: Engine, tiny_folder: Path, model: Model
) -> None:
    size = engine.footprint(model.name)
    engine.load(model, tiny_folder)
    assert engine.footprint(model.name) == engine.expect(model, tiny_folder) == size


def test_it_says_where_it_runs(engine: Engine) -> None:
    description = engine.describe()
    assert description.device in ("fake", "cpu")
    assert not description.parks
    assert description.libraries
