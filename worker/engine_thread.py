"""The one thread that an engine lives on.

torch never runs on the event loop: lease renewal, progress and cancellation go on while it works.
Calls run one at a time in the order in which they were made, so a call that was queued while
another ran begins the moment that one ends.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image

from darkroom.catalog import Model
from darkroom.errors import DeviceLost
from worker.engines.base import Engine, EngineDescription, GenerationTask, OnStep, Preview
from worker.model_cache import ModelCache

T = TypeVar("T")


class EngineThread:
    """The engine, its models, and whether it still lives.

    ``lost`` is set once the device is of no more use: no later call can succeed. `ready`,
    `generate` and `shed` may be called only from within what was given to `submit`.
    """

    def __init__(self, engine: Engine, cache: ModelCache | None = None) -> None:
        self.description: EngineDescription = engine.describe()
        self.lost: DeviceLost | None = None
        self._engine = engine
        self._cache = cache or ModelCache(engine)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._last_sign: float | None = None  # of the call that runs now; monotonic

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that need no load, least recently used first."""
        return self._cache.loaded

    @property
    def silent_seconds(self) -> float:
        """Seconds since the running call began or last finished a step; 0 while none runs."""
        last = self._last_sign
        return 0.0 if last is None else time.monotonic() - last

    async def load(self, model: Model, folder: Path) -> float:
        """Have ``model`` ready, before any job asks; return the seconds it took."""
        return await self.submit(lambda: self.ready(model, folder))

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``call`` on the thread, after what was submitted before."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self._signed, call)

    def close(self) -> None:
        """Take no more calls; the present one, if any, goes on to its end."""
        self._thread.shutdown(wait=False)

    def ready(self, model: Model, folder: Path) -> float:
        """Have ``model`` on the device; return the seconds it took. Raises as the engine does."""
        try:
            return self._cache.ready(model, folder)
        except DeviceLost as error:
            self.lost = error
            raise

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image]]:
        """Return each task's pictures. Raises what the engine's generate raises."""

        def step_done(step: int, total: int, preview: Preview) -> None:
            self._last_sign = time.monotonic()
            on_step(step, total, preview)

        try:
            return self._engine.generate(batch, step_done)
        except DeviceLost as error:
            self.lost = error
            raise

    def evict_first(self, order: Sequence[str]) -> None:
        """Say which models are to make room first; from any thread."""
        self._cache.evict_first = tuple(order)

    def shed(self, keep: str) -> bool:
        """Make room on the device beside model ``keep``; False when there is none to make."""
        return self._cache.shed(keep)

    def _signed(self, call: Callable[[], T]) -> T:
        self._last_sign = time.monotonic()
        try:
            return call()
        finally:
            self._last_sign = None
