"""One engine holds several models; what it says they take is what they take."""

import gc
import json
import shutil
import struct
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.errors import ModelUnavailable, OutOfMemory
from tests.worker.engines.asking import ask, farthest, quiet, run
from tests.worker.engines.conftest import make_model, no_loras
from worker.engines.base import Footprint, GenerationStopped, GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine
from worker.engines.diffusers_devices import CGROUP_LIMITS, host_total_bytes, is_out_of_memory
from worker.engines.diffusers_models import HeldModel
from worker.engines.diffusers_sizes import expected_footprint
from worker.model_cache import ModelCache

CPU = torch.device("cpu")


@pytest.fixture
def engine(tiny_folder: Path) -> DiffusersEngine:
    """An engine that holds two entries on the same files."""
    engine = DiffusersEngine("cpu", no_loras)
    for name in ("one", "two"):
        engine.load(make_model(name=name), tiny_folder)
    return engine


def test_each_generates_in_turn(engine: DiffusersEngine) -> None:
    ((first,),) = run(engine, ask(model="one"))
    ((second,),) = run(engine, ask(model="two"))
    assert farthest(first, second) == 0
    engine.unload("one")
    assert run(engine, ask(model="two"))


@pytest.mark.parametrize("gone", ["unload", "park"])
def test_one_that_is_not_on_the_device_is_unavailable(engine: DiffusersEngine, gone: str) -> None:
    getattr(engine, gone)("one")
    getattr(engine, gone)("nobody")
    with pytest.raises(ModelUnavailable, match="model one is not on the device"):
        run(engine, ask(model="one"))
    assert engine.footprint("one") == Footprint()


def test_the_footprint_is_every_parameter_and_buffer(engine: DiffusersEngine) -> None:
    pipeline = engine._held["one"]._loaded  # there is no other way to know it otherwise
    total = sum(
        tensor.numel() * tensor.element_size()
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        for tensor in (*part.parameters(), *part.buffers())
    )
    assert engine.footprint("one") == Footprint(device_bytes=total)


def test_unloading_frees_the_weights(engine: DiffusersEngine) -> None:
    weights = weakref.ref(engine._held["one"]._loaded.unet.conv_in.weight)
    engine.unload("one")
    assert weights() is None


def test_a_cache_keeps_real_models_within_its_budget(
    engine: DiffusersEngine, tiny_folder: Path
) -> None:
    size = engine.footprint("one").device_bytes
    cache = ModelCache(DiffusersEngine("cpu", no_loras), device_bytes=size * 2)
    for name in "abcab":
        cache.ready(make_model(name=name), tiny_folder)
        assert cache.bytes_held()[0] <= size * 2
    assert cache.loaded == ("a", "b")
    tight = ModelCache(DiffusersEngine("cpu", no_loras), device_bytes=size // 2)
    with pytest.raises(ModelUnavailable, match="the budget"):
        tight.ready(make_model(), tiny_folder)


@pytest.fixture
def held(tiny_folder: Path) -> HeldModel:
    """A model by itself; its device is the CPU, so that moving it moves nothing."""
    return HeldModel(make_model(), tiny_folder, CPU, no_loras)


def test_a_parked_model_takes_of_the_host_what_it_took_of_the_device(held: HeldModel) -> None:
    ready = held.footprint
    held.park()
    assert (held.is_ready, held.footprint) == (False, Footprint(host_bytes=ready.device_bytes))
    assert held.bring_back()
    assert (held.is_ready, held.footprint) == (True, ready)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_a_parked_model_for_which_the_device_is_full_stays_parked(
    held: HeldModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    held.park()
    parked = held.footprint
    monkeypatch.setattr("worker.engines.diffusers_models.bring", full)
    assert not held.bring_back()
    assert (held.is_ready, held.footprint) == (False, parked)
    monkeypatch.undo()
    assert held.bring_back()


def test_a_variant_is_what_is_counted_where_there_is_one(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(tiny_folder, folder)
    plain = expected_footprint(make_model(), folder, CPU)
    weights = next((folder / "unet").glob("*.safetensors"))
    _write_header(weights.with_suffix(".fp16.safetensors"), [4])
    halves = expected_footprint(make_model(variant="fp16"), folder, CPU)
    assert expected_footprint(make_model(), folder, CPU) == plain
    assert halves.device_bytes < plain.device_bytes


def _write_header(file: Path, shape: list[int]) -> None:
    header = json.dumps({"one": {"dtype": "F16", "shape": shape, "data_offsets": [0, 8]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def test_shards_are_counted_together(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(tiny_folder, folder)
    unet = folder / "unet"
    before = expected_footprint(make_model(), folder, CPU).device_bytes
    for file in unet.glob("*.safetensors"):
        before -= sum(one.numel() * 4 for one in _tensors(file))
        file.unlink()
    for number in (1, 2):
        _write_header(unet / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors", [10])
    assert expected_footprint(make_model(), folder, CPU).device_bytes == before + 2 * 10 * 4


def _tensors(file: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(file).values())


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"nope"])
def test_files_without_a_header_are_unavailable(
    tiny_folder: Path, tmp_path: Path, damage: bytes
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    next((folder / "unet").glob("*.safetensors")).write_bytes(damage)
    with pytest.raises(ModelUnavailable, match="tiny cannot be loaded"):
        DiffusersEngine("cpu", no_loras).expect(make_model(), folder)


class Watched:
    """Remembers what the denoiser made, without keeping it, and fails at its ``fail_at``-th."""

    def __init__(self, engine: DiffusersEngine, name: str, fail_at: int, error: Exception) -> None:
        self.made: list[weakref.ref[torch.Tensor]] = []
        self._fail_at, self._error = fail_at, error
        unet = engine._held[name]._loaded.unet
        self.stop = unet.register_forward_hook(self._hook).remove

    def _hook(self, unet: Any, given: Any, made: Any) -> None:
        self.made.append(weakref.ref(made[0]))
        if len(self.made) == self._fail_at:
            raise self._error


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["allocator", "driver", "cublas", "cpu"],
)
def test_when_memory_runs_out_no_tensor_of_the_call_is_kept(
    engine: DiffusersEngine, error: Exception
) -> None:
    watched = Watched(engine, "one", fail_at=3, error=error)
    with pytest.raises(OutOfMemory, match="2 pictures in one call") as caught:
        run(engine, ask(model="one", num_images=2))
    del error
    assert len(watched.made) == 3
    assert [made() for made in watched.made[:2]] == [None, None]
    assert caught.value.__context__ is None
    watched.stop()
    assert run(engine, ask(model="one", num_images=1))


def test_a_call_that_was_stopped_keeps_no_tensor_alive(engine: DiffusersEngine) -> None:
    watched = Watched(engine, "one", fail_at=99, error=ValueError())

    def stop(step: int, total: int, preview: Preview) -> None:
        raise GenerationStopped

    with pytest.raises(GenerationStopped) as caught:
        engine.generate([GenerationTask(ask(model="one"))], stop)
    gc.collect()
    assert caught.value is not None
    assert watched.made[0]() is None
    watched.stop()


def test_a_load_that_runs_out_of_memory_says_so_and_leaves_nothing(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = DiffusersEngine("cpu", no_loras)

    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("worker.engines.diffusers_options.bring", full)
    with pytest.raises(OutOfMemory, match="loading model tiny"):
        engine.load(make_model(), tiny_folder)
    assert engine.footprint("tiny") == Footprint()
    monkeypatch.undo()
    engine.load(make_model(), tiny_folder)
    assert run(engine, ask())


def test_other_errors_are_not_taken_for_a_want_of_memory() -> None:
    assert not is_out_of_memory(torch.AcceleratorError("CUDA error: invalid argument"))
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))


def test_the_hosts_memory_is_at_most_the_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = host_total_bytes()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(
        "worker.engines.diffusers_devices.CGROUP_LIMITS", (limit, *CGROUP_LIMITS[:0])
    )
    limit.write_text("1000000\n")
    assert host_total_bytes() == 1_000_000
    limit.write_text("max\n")
    assert host_total_bytes() >= whole


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_parked_off_the_gpu_comes_back_and_draws_the_same(tiny_folder: Path) -> None:
    engine = DiffusersEngine("cuda", no_loras)
    model = make_model()
    engine.load(model, tiny_folder)
    ready = engine.footprint("tiny")
    ((before,),) = run(engine, ask())
    used = engine.memory().used_bytes
    engine.park("tiny")
    assert engine.footprint("tiny") == Footprint(host_bytes=ready.device_bytes)
    assert engine.memory().used_bytes <= used - ready.device_bytes
    engine.load(model, tiny_folder)
    ((after,),) = run(engine, ask())
    assert engine.footprint("tiny") == ready
    assert farthest(before, after) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_too_large_for_the_gpu_is_out_of_memory_and_frees_it(tiny_folder: Path) -> None:
    engine = DiffusersEngine("cuda", no_loras)
    engine.load(make_model(), tiny_folder)
    run(engine, ask())
    used = engine.memory().used_bytes
    torch.cuda.set_per_process_memory_fraction((used + 2**26) / engine.memory().total_bytes)
    try:
        with pytest.raises(OutOfMemory):
            engine.generate([GenerationTask(ask(num_images=8, width=2048, height=2048))] * 8, quiet)
        assert engine.memory().used_bytes <= used + 2**20
        assert run(engine, ask())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
