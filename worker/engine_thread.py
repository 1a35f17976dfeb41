"""The one thread that an engine lives on, and the model that it holds.

torch never runs on the event loop: lease renewal, progress and cancellation go on while it works.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from PIL.Image import Image

from darkroom.catalog import Model
from worker.claims import Spent
from worker.engines.base import (
    Engine,
    EngineDescription,
    GenerationTask,
    OnStep,
    Preview,
)
from worker.stopping import StopSignal

T = TypeVar("T")


class EngineThread:
    """Runs an engine's calls one at a time, in the order they were made.

    Wall seconds inside the engine are added to the caller's `Spent`, whether or not it raised.
    """

    def __init__(self, engine: Engine) -> None:
        self.description: EngineDescription = engine.describe()
        self._engine = engine
        self._loaded: Model | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._last_sign: float | None = None  # of the call that runs now; monotonic

    @property
    def silent_seconds(self) -> float:
        """Seconds since the running call began or last finished a step; 0 while none runs."""
        last = self._last_sign
        return 0.0 if last is None else time.monotonic() - last

    async def load(self, model: Model, folder: Path, stop: StopSignal, spent: Spent) -> None:
        """Make ``model`` the loaded one.

        A load cannot be interrupted: when ``stop`` is set first, its reason is raised at once and
        the load goes on behind. Raises what the engine's load raises.
        """
        loading = self._submit(lambda: self._load(model, folder, spent))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            either: set[asyncio.Future[Any]] = {loading, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not loading.done():
            loading.add_done_callback(lambda done: done.cancelled() or done.exception())
            stop.check()
        await loading

    async def generate(
        self, batch: Sequence[GenerationTask], on_step: OnStep, spent: Spent
    ) -> list[list[Image]]:
        """Return each task's pictures. Raises what the engine's generate raises."""
        return await self._submit(lambda: self._generate(batch, on_step, spent))

    def close(self) -> None:
        """Take no more calls; the present one, if any, goes on to its end."""
        self._thread.shutdown(wait=False)

    def _submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._signed, call)

    def _signed(self, call: Callable[[], T]) -> T:
        self._last_sign = time.monotonic()
        try:
            return call()
        finally:
            self._last_sign = None

    def _load(self, model: Model, folder: Path, spent: Spent) -> None:
        if self._loaded == model:
            return
        started = time.perf_counter()
        try:
            if self._loaded is not None:
                self._engine.unload(self._loaded.name)
            self._loaded = None
            self._engine.load(model, folder)
            self._loaded = model
        finally:
            spent.load_seconds += time.perf_counter() - started

    def _generate(
        self, batch: Sequence[GenerationTask], on_step: OnStep, spent: Spent
    ) -> list[list[Image]]:
        def step_done(step: int, total: int, preview: Preview) -> None:
            self._last_sign = time.monotonic()
            on_step(step, total, preview)

        started = time.perf_counter()
        try:
            return self._engine.generate(batch, step_done)
        finally:
            spent.gpu_seconds += time.perf_counter() - started
