"""LoRAs on a real pipeline with random weights: they act for one call and leave no trace."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from darkroom.catalog import LoraSource, Model
from darkroom.errors import ModelUnavailable
from tests.worker.engines.asking import GIVEN, ask, farthest, pixels, png, run
from tests.worker.engines.tiny import save_tiny_lora
from worker.engines import diffusers_loras
from worker.engines.base import GenerationStopped, GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine

ModelWith = Callable[..., Model]


@pytest.fixture(scope="session")
def lora_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("ink", "wash.v2")):
        save_tiny_lora(tiny_folder, folder / f"{name}.safetensors", seed)
    (folder / "noise.safetensors").write_bytes(b"no safetensors at all")
    (folder / "pickle.bin").write_bytes(b"\x80\x04")
    return folder


@pytest.fixture
def engine(tiny_folder: Path, lora_folder: Path, model_with: ModelWith) -> DiffusersEngine:
    """An engine whose model lists every file of the folder, each pinned."""

    def source(file: Path) -> dict[str, str]:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return {"name": file.stem, "source": file.name, "sha256": digest}

    def locate(lora: LoraSource) -> Path:
        return lora_folder / lora.source

    loaded = DiffusersEngine("cpu", locate)
    files = sorted(file for file in lora_folder.iterdir() if file.is_file())
    loaded.load(model_with(loras=[source(file) for file in files]), tiny_folder)
    return loaded


def draw(engine: DiffusersEngine, *loras: tuple[str, float], **fields: Any) -> Any:
    named = [{"name": name, "weight": weight} for name, weight in loras]
    ((picture,),) = run(engine, ask(loras=named, **fields))
    return picture


def distance(one: Any, other: Any) -> float:
    return float(abs(pixels(one) - pixels(other)).mean())


def test_a_lora_changes_the_pixels_and_the_same_ones_each_time(engine: DiffusersEngine) -> None:
    plain, inked = draw(engine), draw(engine, ("ink", 1.0))
    assert farthest(plain, inked) > 1
    assert farthest(inked, draw(engine, ("ink", 1.0))) == 0


def test_its_weight_says_how_much(engine: DiffusersEngine) -> None:
    plain = draw(engine)
    away = [distance(plain, draw(engine, ("ink", weight))) for weight in (0.0, 0.2, 1.0)]
    assert away[0] == 0
    assert away == sorted(away)
    assert away[1] < away[2]


def test_a_job_without_it_afterwards_gets_the_untouched_pixels(engine: DiffusersEngine) -> None:
    before = draw(engine)
    draw(engine, ("ink", 1.0))
    assert farthest(draw(engine), before) == 0


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The adapters that are loaded from their files, in order."""
    names: list[str] = []
    really = StableDiffusionPipeline.load_lora_weights

    def load(pipeline: Any, folder: Path, **fields: Any) -> None:
        names.append(fields["adapter_name"])
        really(pipeline, folder, **fields)

    monkeypatch.setattr(StableDiffusionPipeline, "load_lora_weights", load)
    return names


def test_it_stays_attached_for_the_next_job_that_asks_for_it(
    engine: DiffusersEngine, loads: list[str]
) -> None:
    first = draw(engine, ("ink", 1.0))
    draw(engine, ("wash.v2", 0.5))
    draw(engine)
    assert farthest(draw(engine, ("ink", 1.0)), first) == 0
    assert loads == ["ink", "wash_v2"]


def test_only_the_most_recently_used_stay_attached(
    engine: DiffusersEngine, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers_loras, "MAX_ATTACHED", 1)
    plain, first = draw(engine), draw(engine, ("ink", 1.0))
    attached = engine.footprint("tiny")
    other = draw(engine, ("wash.v2", 1.0))
    assert engine.footprint("tiny") == attached
    assert farthest(draw(engine, ("ink", 1.0)), first) == 0
    assert farthest(draw(engine, ("wash.v2", 1.0)), other) == 0
    assert farthest(draw(engine), plain) == 0
    assert loads == ["ink", "wash_v2", "ink", "wash_v2"]


def test_what_is_attached_counts_in_the_footprint(engine: DiffusersEngine) -> None:
    before = engine.footprint("tiny").device_bytes
    draw(engine, ("ink", 1.0))
    inked = engine.footprint("tiny").device_bytes
    draw(engine, ("wash.v2", 1.0))
    assert before < inked < engine.footprint("tiny").device_bytes


def test_its_digest_is_taken_once(engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[object] = []
    really = hashlib.file_digest

    def digest(*given: Any) -> Any:
        digests.append(given)
        return really(*given)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    for _ in range(3):
        draw(engine, ("ink", 1.0))
    assert len(digests) == 1


def test_it_is_gone_too_when_its_job_was_stopped(engine: DiffusersEngine) -> None:
    before = draw(engine)

    def stop(step: int, total: int, preview: Preview) -> None:
        raise GenerationStopped

    with pytest.raises(GenerationStopped):
        engine.generate([GenerationTask(ask(loras=[{"name": "ink", "weight": 1.0}]))], stop)
    assert farthest(draw(engine), before) == 0


def test_two_act_together(engine: DiffusersEngine) -> None:
    both = draw(engine, ("ink", 1.0), ("wash.v2", 0.5))
    for alone in (draw(engine, ("ink", 1.0)), draw(engine, ("wash.v2", 0.5))):
        assert farthest(both, alone) > 1
    assert farthest(both, draw(engine, ("wash.v2", 0.5), ("ink", 1.0))) <= 1


def test_it_acts_on_the_other_kinds_too(engine: DiffusersEngine) -> None:
    asked = {"image": GIVEN, "strength": 0.9}
    loras = [{"name": "ink", "weight": 1.0}]
    start = png((200, 40, 40))
    ((plain,),) = run(engine, ask(**asked), image=start)
    ((inked,),) = run(engine, ask(loras=loras, **asked), image=start)
    ((after,),) = run(engine, ask(**asked), image=start)
    assert farthest(plain, inked) > 1
    assert farthest(plain, after) == 0


def test_a_file_that_is_not_the_pinned_one_is_refused(
    engine: DiffusersEngine, lora_folder: Path
) -> None:
    file = lora_folder / "ink.safetensors"
    pinned = file.read_bytes()
    file.write_bytes(pinned[:-1] + bytes([pinned[-1] ^ 1]))
    try:
        with pytest.raises(ModelUnavailable, match="not the one pinned"):
            draw(engine, ("ink", 1.0))
    finally:
        file.write_bytes(pinned)


def test_a_file_that_was_changed_while_attached_is_refused(
    engine: DiffusersEngine, lora_folder: Path
) -> None:
    plain = draw(engine)
    draw(engine, ("ink", 1.0))
    file = lora_folder / "ink.safetensors"
    pinned = file.read_bytes()
    file.write_bytes(pinned + b" ")
    try:
        with pytest.raises(ModelUnavailable, match="not the one pinned"):
            draw(engine, ("ink", 1.0))
    finally:
        file.write_bytes(pinned)
    assert farthest(draw(engine), plain) == 0


@pytest.mark.parametrize("name", ["noise", "pickle"])
def test_a_file_that_is_no_lora_is_unavailable_and_the_engine_goes_on(
    engine: DiffusersEngine, name: str
) -> None:
    before = draw(engine)
    with pytest.raises(ModelUnavailable, match=name) as caught:
        draw(engine, ("wash.v2", 1.0), (name, 1.0))
    assert caught.value.target == "loras"
    assert farthest(draw(engine), before) == 0
