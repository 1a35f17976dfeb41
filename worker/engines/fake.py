"""FakeEngine: noise instead of pictures, in no time. For tests only; it never ships a result."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.catalog import Model
from darkroom.errors import ModelUnavailable, OutOfMemory
from worker.engines.base import (
    MAX_PREVIEW_PIXELS,
    Engine,
    EngineDescription,
    EngineMemory,
    Footprint,
    GenerationTask,
    OnStep,
)


def fake_picture(prompt: str, seed: int, width: int, height: int) -> Image.Image:
    """Return the noise that stands for this prompt, seed and size (pixels)."""
    digest = hashlib.sha256(f"{prompt}\x00{seed}".encode()).digest()
    noise = np.random.default_rng(np.frombuffer(digest, dtype=np.uint64))
    return Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))


class FakeEngine(Engine):
    """Deterministic noise by prompt, seed and size.

    ``step_seconds`` is slept per step. ``fail`` is called with each batch before its first step and
    may raise what a pipeline would; ``fail_load`` likewise before a load. ``sizes`` are the bytes
    that models pretend to take (1 unless named), on a device of ``total_bytes`` (0: without end)
    that does or does not park.
    """

    def __init__(
        self,
        step_seconds: float = 0.0,
        fail: Callable[[Sequence[GenerationTask]], None] | None = None,
        fail_load: Callable[[Model], None] | None = None,
        *,
        sizes: Mapping[str, int] | None = None,
        total_bytes: int = 0,
        parks: bool = False,
    ) -> None:
        self._step_seconds = step_seconds
        self._fail = fail
        self._fail_load = fail_load
        self._sizes = sizes or {}
        self._total_bytes = total_bytes
        self._parks = parks
        self._ready: set[str] = set()
        self._parked: set[str] = set()
        self._peak_bytes = 0

    def expect(self, model: Model, folder: Path) -> Footprint:
        """The pretended size; the folder need not exist."""
        return Footprint(device_bytes=self._size(model.name))

    def load(self, model: Model, folder: Path) -> None:
        """Remember the model's name; its folder need not exist."""
        if self._fail_load is not None:
            self._fail_load(model)
        used = self.memory().used_bytes + self._size(model.name)
        if model.name not in self._ready and 0 < self._total_bytes < used:
            raise OutOfMemory(f"fake has too little memory for loading model {model.name}")
        self._parked.discard(model.name)
        self._ready.add(model.name)
        self._peak_bytes = max(self._peak_bytes, self.memory().used_bytes)

    def park(self, name: str) -> None:
        """Remember that the model is off the device."""
        if name in self._ready and self._parks:
            self._parked.add(name)
        self._ready.discard(name)

    def unload(self, name: str) -> None:
        """Forget the model."""
        self._ready.discard(name)
        self._parked.discard(name)

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image.Image]]:
        """Step through the batch, then return its noise."""
        name = batch[0].generation.model
        if name not in self._ready:
            raise ModelUnavailable(f"model {name} is not on the device", target="model")
        if self._fail is not None:
            self._fail(batch)
        steps = batch[0].generation.num_inference_steps
        for step in range(1, steps + 1):
            time.sleep(self._step_seconds)
            on_step(step, steps, lambda: [_small(task) for task in batch])
        return [[_picture(task, seed) for seed in task.seeds] for task in batch]

    def memory(self) -> EngineMemory:
        """The sum of what the models pretend to take."""
        used = sum(self._size(name) for name in self._ready)
        return EngineMemory(used, max(used, self._peak_bytes), self._total_bytes)

    def footprint(self, name: str) -> Footprint:
        """The pretended size, where the model is."""
        if name in self._parked:
            return Footprint(host_bytes=self._size(name))
        return Footprint(device_bytes=self._size(name) if name in self._ready else 0)

    def describe(self) -> EngineDescription:
        """Say plainly that this is no real engine."""
        return EngineDescription("fake", {"numpy": np.__version__}, parks=self._parks)

    def _size(self, name: str) -> int:
        return self._sizes.get(name, 1)


def _picture(task: GenerationTask, seed: int) -> Image.Image:
    asked = task.generation
    return fake_picture(asked.prompt, seed, asked.width, asked.height)


def _small(task: GenerationTask) -> Image.Image:
    picture = _picture(task, task.seeds[0])
    picture.thumbnail((MAX_PREVIEW_PIXELS, MAX_PREVIEW_PIXELS))
    return picture
