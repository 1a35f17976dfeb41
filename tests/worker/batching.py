"""What tests of batches and windows need: an engine that can be held, and pools of some size."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from PIL.Image import Image

from tests.worker.site import POOL, Site, eventually
from worker.engines.base import GenerationTask, OnStep, Preview
from worker.engines.fake import FakeEngine


class OpeningEngine(FakeEngine):
    """An engine whose first call waits for `open`, so that the worker's window fills meanwhile.

    ``calls`` are the tasks of every call since then; ``fail`` sees each of them first.
    """

    def __init__(
        self,
        fail: Callable[[Sequence[GenerationTask]], None] | None = None,
        step_seconds: float = 0.0,
        at_step: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(step_seconds, fail=self._wait)
        self.calls: list[Sequence[GenerationTask]] = []
        self.steps = 0
        self.waiting = threading.Event()
        self._gate = threading.Event()
        self._fail_call = fail
        self._at_step = at_step

    def open(self) -> None:
        """Let the first call go on."""
        self._gate.set()

    @property
    def sizes(self) -> list[int]:
        """How many pictures each call was asked for."""
        return [sum(len(task.seeds) for task in call) for call in self.calls]

    def generate(self, batch: Any, on_step: OnStep) -> list[list[Image]]:
        def counted(step: int, total: int, preview: Preview) -> None:
            self.steps += 1
            if self._at_step is not None and len(self.calls) > 0:
                self._at_step(step)
            on_step(step, total, preview)

        return super().generate(batch, counted)

    def _wait(self, batch: Sequence[GenerationTask]) -> None:
        if not self.waiting.is_set():
            self.waiting.set()
            assert self._gate.wait(20)
            self.steps = 0
            return
        self.calls.append(batch)
        if self._fail_call is not None:
            self._fail_call(batch)


def pool_of(site: Site, **fields: Any) -> Site:
    """Return the site with another pool: ``concurrency``, ``replicas`` and so on."""
    pool = type(site.pool).model_validate({**site.pool.model_dump(), **fields})
    return site.changed(catalog=site.catalog.model_copy(update={"pools": (pool,)}))


def held(site: Site) -> float:
    """How many messages the site's workers hold for jobs that they do not run yet."""
    value = site.metrics.registry.get_sample_value("darkroom_jobs_held", {"pool": POOL})
    return value or 0.0


async def holds(site: Site, count: int) -> None:
    """Wait until so many are held."""

    async def so_many() -> bool:
        return held(site) == count

    await eventually(so_many)


async def is_waiting(engine: OpeningEngine) -> None:
    """Wait until the first call has begun."""

    async def begun() -> bool:
        return engine.waiting.is_set()

    await eventually(begun)


async def submit_batch(site: Site, engine: OpeningEngine, *jobs: dict[str, Any]) -> list[str]:
    """Submit one job that keeps the engine at its gate, and behind it ``jobs``; return their ids.

    When this returns, the worker holds them all and the gate is open.
    """
    await site.submit(seed=10_000, num_inference_steps=1)
    await is_waiting(engine)
    ids = [await site.submit(**job) for job in jobs]
    await holds(site, len(ids))
    engine.open()
    return ids


async def all_ended(site: Site, ids: Sequence[str]) -> list[Any]:
    """Wait until all have ended; return their records."""
    return list(await asyncio.gather(*(site.ended(job_id, seconds=20) for job_id in ids)))
