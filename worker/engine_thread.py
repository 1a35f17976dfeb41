"""The one thread that an engine lives on, and the model that it holds.

torch never runs on the event loop: lease renewal, progress and cancellation go on while it works.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL.Image import Image

from darkroom.catalog import Model
from worker.engines.base import Engine, EngineDescription, GenerationTask, OnStep
from worker.stopping import StopSignal

T = TypeVar("T")


@dataclass(frozen=True)
class Generated:
    """The pictures of each task, and the wall seconds inside the engine's call."""

    pictures: list[list[Image]]
    seconds: float


class EngineThread:
    """Runs an engine's calls one at a time, in the order they were made."""

    def __init__(self, engine: Engine) -> None:
        self.description: EngineDescription = engine.describe()
        self._engine = engine
        self._loaded: Model | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def load(self, model: Model, folder: Path, stop: StopSignal) -> float:
        """Make ``model`` the loaded one; return the seconds that took, 0 if it was already.

        A load cannot be interrupted: when ``stop`` is set first, its reason is raised at once and
        the load goes on behind. Raises what the engine's load raises.
        """
        loading = self._submit(lambda: self._load(model, folder))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            either: set[asyncio.Future[Any]] = {loading, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not loading.done():
            loading.add_done_callback(lambda done: done.cancelled() or done.exception())
            stop.check()
        return await loading

    async def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> Generated:
        """Return the batch's pictures. Raises what the engine's generate raises."""
        return await self._submit(lambda: self._generate(batch, on_step))

    def close(self) -> None:
        """Take no more calls; the present one, if any, goes on to its end."""
        self._thread.shutdown(wait=False)

    def _submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _load(self, model: Model, folder: Path) -> float:
        if self._loaded == model:
            return 0.0
        started = time.perf_counter()
        self._loaded = None
        self._engine.unload()
        self._engine.load(model, folder)
        self._loaded = model
        return time.perf_counter() - started

    def _generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> Generated:
        started = time.perf_counter()
        pictures = self._engine.generate(batch, on_step)
        return Generated(pictures, time.perf_counter() - started)
