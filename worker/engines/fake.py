"""FakeEngine: noise instead of pictures, in no time. For tests only; it never ships a result."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.catalog import Model
from worker.engines.base import Engine, EngineDescription, EngineMemory, GenerationTask, OnStep


def fake_picture(prompt: str, seed: int, width: int, height: int) -> Image.Image:
    """Return the noise that stands for this prompt, seed and size (pixels)."""
    digest = hashlib.sha256(f"{prompt}\x00{seed}".encode()).digest()
    noise = np.random.default_rng(np.frombuffer(digest, dtype=np.uint64))
    return Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))


class FakeEngine(Engine):
    """Deterministic noise by prompt, seed and size.

    ``step_seconds`` is slept per step. ``fail`` is called with each batch before its first step and
    may raise what a pipeline would; ``fail_load`` likewise before a load.
    """

    def __init__(
        self,
        step_seconds: float = 0.0,
        fail: Callable[[Sequence[GenerationTask]], None] | None = None,
        fail_load: Callable[[Model], None] | None = None,
    ) -> None:
        self._step_seconds = step_seconds
        self._fail = fail
        self._fail_load = fail_load
        self._loaded: str | None = None

    def load(self, model: Model, folder: Path) -> None:
        """Remember the model's name; its folder need not exist."""
        if self._fail_load is not None:
            self._fail_load(model)
        self._loaded = model.name

    def unload(self) -> None:
        """Forget the model."""
        self._loaded = None

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image.Image]]:
        """Step through the batch, then return its noise."""
        if self._fail is not None:
            self._fail(batch)
        steps = batch[0].generation.num_inference_steps
        for step in range(1, steps + 1):
            time.sleep(self._step_seconds)
            on_step(step, steps)
        return [
            [fake_picture(asked.prompt, seed, asked.width, asked.height) for seed in asked.seeds]
            for asked in (task.generation for task in batch)
        ]

    def memory(self) -> EngineMemory:
        """Nothing is held."""
        return EngineMemory(used_bytes=0, peak_bytes=0, total_bytes=0)

    def describe(self) -> EngineDescription:
        """Say plainly that this is no real engine."""
        return EngineDescription(device="fake", libraries={"numpy": np.__version__})
