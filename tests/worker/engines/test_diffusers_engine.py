"""DiffusersEngine on real pipelines with random weights."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from darkroom.catalog import Model
from darkroom.errors import (
    DeviceLost,
    InvalidInput,
    ModelUnavailable,
    OutOfMemory,
    SettingsError,
)
from tests.worker.engines.asking import GIVEN, ask, farthest, png, run
from tests.worker.engines.conftest import no_loras
from tests.worker.engines.tiny import save_tiny_stable_diffusion
from worker.engines.base import GenerationStopped, GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine

ModelWith = Callable[..., Model]


def test_a_text_becomes_as_many_pictures_as_asked_of_the_asked_size(
    engine: DiffusersEngine,
) -> None:
    ((first, second),) = run(engine, ask(num_images=2, width=72, height=64))
    assert (first.size, first.mode) == ((72, 64), "RGB")
    assert farthest(first, second) > 1


def test_the_same_seed_makes_the_same_pixels(engine: DiffusersEngine) -> None:
    ((one,),), ((again,),), ((other,),) = (run(engine, ask(seed=seed)) for seed in (5, 5, 6))
    assert farthest(one, again) == 0
    assert farthest(one, other) > 1


def test_a_seed_fixes_its_picture_whatever_the_batch(engine: DiffusersEngine) -> None:
    ((alone,),) = run(engine, ask(seed=9))
    mates = run(engine, ask(seed=1, prompt="a blue sea"), ask(seed=8, num_images=3))
    assert farthest(alone, mates[1][1]) <= 1


def test_consecutive_seeds_are_the_pictures_of_one_request(engine: DiffusersEngine) -> None:
    (together,) = run(engine, ask(seed=20, num_images=2))
    ((second,),) = run(engine, ask(seed=21))
    assert farthest(together[1], second) <= 1


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "a blue sea at night"},
        {"negative_prompt": "red"},
        {"guidance_scale": 9.0},
        {"num_inference_steps": 7},
        {"scheduler": "EulerDiscreteScheduler"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_parameter_reaches_the_pipeline(
    engine: DiffusersEngine, changed: dict[str, Any]
) -> None:
    base = {"scheduler": "DDIMScheduler"}
    ((plain,),) = run(engine, ask(**base))
    ((other,),) = run(engine, ask(**{**base, **changed}))
    assert farthest(plain, other) > 0


def test_without_guidance_a_negative_prompt_changes_nothing(engine: DiffusersEngine) -> None:
    ((plain,),) = run(engine, ask(guidance_scale=1.0))
    ((same,),) = run(engine, ask(guidance_scale=1.0, negative_prompt="red"))
    assert farthest(plain, same) == 0


def test_a_scheduler_of_one_request_does_not_stay_for_the_next(engine: DiffusersEngine) -> None:
    ((before,),) = run(engine, ask(scheduler="DDIMScheduler"))
    run(engine, ask(scheduler="DPMSolverMultistepScheduler"))
    ((after,),) = run(engine, ask(scheduler="DDIMScheduler"))
    assert farthest(before, after) == 0


@pytest.mark.parametrize("name", ["NoSuchScheduler", "StableDiffusionPipeline", "logging"])
def test_an_unknown_scheduler_is_the_callers_mistake(engine: DiffusersEngine, name: str) -> None:
    with pytest.raises(InvalidInput, match=name) as caught:
        run(engine, ask(scheduler=name))
    assert caught.value.target == "scheduler"


def test_image_to_image_keeps_more_of_the_picture_at_less_strength(
    engine: DiffusersEngine,
) -> None:
    start = png((200, 40, 40))
    asked = {"image": GIVEN, "num_inference_steps": 10}
    ((near,),) = run(engine, ask(strength=0.2, **asked), image=start)
    ((far,),) = run(engine, ask(strength=1.0, **asked), image=start)
    ((again,),) = run(engine, ask(strength=0.2, **asked), image=start)
    assert near.size == (64, 64)
    assert farthest(near, far) > 1
    assert farthest(near, again) == 0


def test_image_to_image_starts_from_the_picture_it_is_given(engine: DiffusersEngine) -> None:
    asked = ask(image=GIVEN, strength=0.5)
    ((red,),) = run(engine, asked, image=png((200, 40, 40)))
    ((blue,),) = run(engine, asked, image=png((40, 40, 200), size=(100, 80)))
    assert red.size == blue.size == (64, 64)
    assert farthest(red, blue) > 0


def test_inpainting_heeds_its_mask(engine: DiffusersEngine) -> None:
    asked = ask(image=GIVEN, mask_image=GIVEN, strength=1.0, num_images=2)
    start = png((200, 40, 40))
    ((whole, _),) = run(engine, asked, image=start, mask_image=png(255))
    ((none, _),) = run(engine, asked, image=start, mask_image=png(0))
    assert farthest(whole, none) > 1


def test_a_seed_fixes_its_picture_in_every_kind(engine: DiffusersEngine) -> None:
    start, mask = png((200, 40, 40)), png(255)
    for kind in ({"image": GIVEN}, {"image": GIVEN, "mask_image": GIVEN}):
        files = {"image": start} | ({"mask_image": mask} if "mask_image" in kind else {})
        (together,) = run(engine, ask(seed=30, num_images=3, strength=0.8, **kind), **files)
        ((alone,),) = run(engine, ask(seed=32, strength=0.8, **kind), **files)
        assert farthest(together[2], alone) <= 1


def test_too_little_strength_for_a_step_is_the_callers_mistake(engine: DiffusersEngine) -> None:
    with pytest.raises(InvalidInput, match="less than one step") as caught:
        run(engine, ask(image=GIVEN, strength=0.1), image=png((1, 2, 3)))
    assert caught.value.target == "strength"


def test_strength_without_an_image_is_the_callers_mistake(engine: DiffusersEngine) -> None:
    with pytest.raises(InvalidInput, match="needs an image"):
        run(engine, ask(strength=0.5))


def test_a_picture_that_cannot_be_read_is_the_callers_mistake(engine: DiffusersEngine) -> None:
    with pytest.raises(InvalidInput, match="no picture") as caught:
        run(engine, ask(image=GIVEN, strength=0.5), image=b"not a picture")
    assert caught.value.target == "image"


def test_a_kind_that_the_catalog_does_not_list_is_refused(
    tiny_folder: Path, model_with: ModelWith
) -> None:
    engine = DiffusersEngine("cpu", no_loras)
    engine.load(model_with(kinds=("text_to_image",)), tiny_folder)
    with pytest.raises(InvalidInput, match="image_to_image") as caught:
        run(engine, ask(image=GIVEN, strength=0.5), image=png((1, 2, 3)))
    assert caught.value.target == "image"


def test_other_kinds_work_with_an_autoencoder_of_another_type(
    tmp_path: Path, tiny_model: Model
) -> None:
    engine = DiffusersEngine("cpu", no_loras)
    engine.load(tiny_model, save_tiny_stable_diffusion(tmp_path, tiny_autoencoder=True))
    ((picture,),) = run(engine, ask(image=GIVEN, strength=0.5), image=png((200, 40, 40)))
    ((painted,),) = run(
        engine,
        ask(image=GIVEN, mask_image=GIVEN, strength=0.5),
        image=png((200, 40, 40)),
        mask_image=png(255),
    )
    assert picture.size == painted.size == (64, 64)


def test_inpainting_blends_latents_of_any_number_of_channels(
    tmp_path: Path, tiny_model: Model
) -> None:
    engine = DiffusersEngine("cpu", no_loras)
    engine.load(tiny_model, save_tiny_stable_diffusion(tmp_path, tiny_autoencoder=True, channels=8))
    before = run(engine, ask())
    asked = ask(image=GIVEN, mask_image=GIVEN, strength=1.0)
    start = png((200, 40, 40))
    ((whole,),) = run(engine, asked, image=start, mask_image=png(255))
    ((none,),) = run(engine, asked, image=start, mask_image=png(0))
    assert farthest(whole, none) > 1
    assert farthest(run(engine, ask())[0][0], before[0][0]) == 0


def test_inpainting_with_a_u_net_of_other_inputs_is_refused(
    tmp_path: Path, tiny_model: Model
) -> None:
    engine = DiffusersEngine("cpu", no_loras)
    engine.load(tiny_model, save_tiny_stable_diffusion(tmp_path, unet_channels=8))
    files = {"image": png((200, 40, 40)), "mask_image": png(255)}
    with pytest.raises(InvalidInput, match="cannot inpaint") as caught:
        run(engine, ask(image=GIVEN, mask_image=GIVEN, strength=0.5), **files)
    assert caught.value.target == "mask_image"


def test_each_step_is_told_and_counted(engine: DiffusersEngine) -> None:
    steps: list[tuple[int, int]] = []
    engine.generate([GenerationTask(ask(num_inference_steps=5))], lambda *s: steps.append(s[:2]))
    assert steps == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_partial_image_to_image_run_tells_its_own_number_of_steps(
    engine: DiffusersEngine,
) -> None:
    steps: list[tuple[int, int]] = []
    asked = ask(image=GIVEN, strength=0.5, num_inference_steps=10)
    task = GenerationTask(asked, image=png((1, 2, 3)))
    engine.generate([task], lambda *step: steps.append(step[:2]))
    assert steps[-1] == (5, 5)


def test_stopping_in_a_step_leaves_the_pipeline_as_it_was(engine: DiffusersEngine) -> None:
    ((before,),) = run(engine, ask(scheduler="DPMSolverMultistepScheduler"))

    def stop(step: int, total: int, preview: Preview) -> None:
        if step == 2:
            raise GenerationStopped

    with pytest.raises(GenerationStopped):
        engine.generate([GenerationTask(ask(scheduler="DPMSolverMultistepScheduler"))], stop)
    ((after,),) = run(engine, ask(scheduler="DPMSolverMultistepScheduler"))
    assert farthest(before, after) == 0


def test_a_folder_without_a_pipeline_is_unavailable(tmp_path: Path, tiny_model: Model) -> None:
    with pytest.raises(ModelUnavailable, match="tiny"):
        DiffusersEngine("cpu", no_loras).load(tiny_model, tmp_path)


def test_damaged_weights_are_unavailable(
    tmp_path: Path, tiny_folder: Path, tiny_model: Model
) -> None:
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        DiffusersEngine("cpu", no_loras).load(tiny_model, tmp_path)


def test_weights_as_pickles_are_never_loaded(
    tmp_path: Path, tiny_folder: Path, tiny_model: Model
) -> None:
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelUnavailable):
        DiffusersEngine("cpu", no_loras).load(tiny_model, tmp_path)


def test_a_cpu_runs_in_float32_whatever_the_catalog_says(
    tiny_folder: Path, model_with: ModelWith
) -> None:
    engine = DiffusersEngine("cpu", no_loras)
    engine.load(model_with(dtype="float16"), tiny_folder)
    ((picture,),) = run(engine, ask())
    assert picture.size == (64, 64)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_is_told_apart_and_the_engine_goes_on(
    engine: DiffusersEngine, error: Exception
) -> None:
    def exhaust(step: int, total: int, preview: Preview) -> None:
        raise error

    with pytest.raises(OutOfMemory, match="1 pictures"):
        engine.generate([GenerationTask(ask())], exhaust)
    assert run(engine, ask())


@pytest.mark.parametrize("words", ["device-side assert triggered", "unspecified launch failure"])
def test_a_gpu_that_failed_for_good_is_told_apart(engine: DiffusersEngine, words: str) -> None:
    def crash(step: int, total: int, preview: Preview) -> None:
        raise torch.AcceleratorError(f"CUDA error: {words}\nCompile with TORCH_USE_CUDA_DSA")

    with pytest.raises(DeviceLost, match=f"the GPU failed: {words}$"):
        engine.generate([GenerationTask(ask())], crash)


def test_an_error_of_one_call_on_the_gpu_is_the_pipelines_own(engine: DiffusersEngine) -> None:
    def refuse(step: int, total: int, preview: Preview) -> None:
        raise torch.AcceleratorError("CUDA error: invalid configuration argument")

    with pytest.raises(torch.AcceleratorError):
        engine.generate([GenerationTask(ask())], refuse)
    assert run(engine, ask())


def test_a_gpu_that_is_not_there_is_refused_at_start() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SettingsError, match="cuda:3"):
        DiffusersEngine("cuda:3", no_loras)


def test_the_engine_says_where_and_with_what_it_runs(engine: DiffusersEngine) -> None:
    description = engine.describe()
    assert description.device == "cpu"
    assert description.libraries["torch"] == torch.__version__
    memory = engine.memory()
    assert 0 < memory.used_bytes <= memory.total_bytes


def test_a_prompt_that_is_cut_off_is_not_quoted_in_the_log(
    engine: DiffusersEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("diffusers", "transformers"):
        monkeypatch.setattr(logging.getLogger(library), "propagate", True)
    run(engine, ask(prompt="too many words for sixteen tokens"))
    assert caplog.text == ""


def test_an_unknown_lora_is_the_callers_mistake(engine: DiffusersEngine) -> None:
    with pytest.raises(InvalidInput, match="ink") as caught:
        run(engine, ask(loras=[{"name": "ink", "weight": 1.0}]))
    assert caught.value.target == "loras"


def test_a_lora_that_is_not_the_pinned_file_is_never_loaded(
    tmp_path: Path, tiny_folder: Path, model_with: ModelWith
) -> None:
    file = tmp_path / "ink.safetensors"
    file.write_bytes(b"something else")
    engine = DiffusersEngine("cpu", lambda source: file)
    pinned = {"name": "ink", "source": "ink.safetensors", "sha256": "0" * 64}
    engine.load(model_with(loras=[pinned]), tiny_folder)
    with pytest.raises(ModelUnavailable, match="not the one pinned"):
        run(engine, ask(loras=[{"name": "ink", "weight": 1.0}]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_picture_from_a_seed_as_in_a_batch(
    tiny_folder: Path, tiny_model: Model
) -> None:
    engine = DiffusersEngine("cuda", no_loras)
    engine.load(tiny_model, tiny_folder)
    ((alone,),) = run(engine, ask(seed=4))
    ((_, second),) = run(engine, ask(seed=3, num_images=2))
    assert farthest(alone, second) <= 1
    engine.unload(tiny_model.name)
    assert engine.memory().used_bytes < 100 * 2**20
