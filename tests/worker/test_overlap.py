"""The device waits for nothing but work: leasing, denoising and storing go on at once."""

import asyncio
import threading
import time
from typing import Any

from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import JobState
from tests.worker.batching import OpeningEngine, all_ended, pool_of, submit_batch
from tests.worker.site import POOL, CountingEngine, Site, eventually
from worker.engines.fake import FakeEngine


class HeldImages(MemoryImageStore):
    """Pictures that reach the store only once ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.puts: list[str] = []

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        self.puts.append(job_id)
        await self.gate.wait()
        await super().put(job_id, name, png, attempt=attempt)


async def test_the_next_batches_are_made_while_the_last_is_stored(memory_site: Site) -> None:
    images, engine = HeldImages(), OpeningEngine()
    site = memory_site.changed(images=images)
    async with site.worker(engine):
        ids = await submit_batch(site, engine, *({"seed": seed} for seed in range(6)))

        async def second_made() -> bool:
            return len(engine.calls) >= 2 and len(images.puts) >= 2

        await eventually(second_made)
        assert not any([(await site.jobs.get(job_id)).status.is_terminal for job_id in ids])
        images.gate.set()
        jobs = await all_ended(site, ids)
    assert {job.attempts for job in jobs} == {1}


async def test_no_more_is_begun_while_two_batches_wait_for_the_store(memory_site: Site) -> None:
    images, engine = HeldImages(), OpeningEngine()
    site = memory_site.changed(images=images)
    async with site.worker(engine):
        ids = await submit_batch(site, engine, *({"seed": seed} for seed in range(8)))

        async def stuck() -> bool:
            return len(images.puts) >= 2

        await eventually(stuck)
        await asyncio.sleep(0.3)  # time enough for all of them, were nothing in the way
        assert len(images.puts) <= 3
        waiting = [(await site.jobs.get(job_id)).status for job_id in ids]
        assert waiting.count(JobState.NOT_STARTED) >= 5
        images.gate.set()
        await all_ended(site, ids)


class Stalling(FakeEngine):
    """Stops the event loop as a call ends, until the next has begun."""

    def __init__(self) -> None:
        super().__init__(step_seconds=0.1)
        self.loop = asyncio.get_running_loop()
        self.began = [threading.Event() for _ in range(4)]
        self.calls = 0
        self.stalled: list[bool] = []

    def generate(self, batch: Any, on_step: Any) -> Any:
        number, self.calls = self.calls, self.calls + 1
        self.began[number].set()
        pictures = super().generate(batch, on_step)
        if number == 1:  # of the first, nothing is known that would tell when it ends
            stopped = threading.Event()
            self.loop.call_soon_threadsafe(self._stall, stopped)
            assert stopped.wait(10)
        return pictures

    def _stall(self, stopped: threading.Event) -> None:
        stopped.set()
        self.stalled.append(self.began[2].wait(5))


async def test_the_next_call_is_queued_before_the_running_one_ends(memory_site: Site) -> None:
    """The event loop is stopped in between: it cannot be what starts the next call."""
    engine = Stalling()
    ids = [await memory_site.submit(seed=seed, num_inference_steps=4) for seed in range(4)]
    async with memory_site.worker(engine):
        await all_ended(memory_site, ids)
    assert engine.stalled == [True]


async def test_jobs_are_claimed_only_when_they_are_about_to_run(memory_site: Site) -> None:
    engine = CountingEngine(step_seconds=0.02)
    ids = [await memory_site.submit(seed=seed, num_inference_steps=60) for seed in range(3)]
    async with memory_site.worker(engine):

        async def half_way() -> bool:
            return engine.steps >= 30

        await eventually(half_way)
        states = [(await memory_site.jobs.get(job_id)).status for job_id in ids]
        assert states == [JobState.RUNNING, JobState.NOT_STARTED, JobState.NOT_STARTED]
        await all_ended(memory_site, ids)


async def test_the_device_is_busy_nearly_all_of_the_time_under_backlog(memory_site: Site) -> None:
    """With jobs of 0.2 s; bench/saturation.py measures it on real pipelines."""
    site, engine = pool_of(memory_site, concurrency=4), OpeningEngine(step_seconds=0.05)
    async with site.worker(engine):
        ids = await submit_batch(
            site, engine, *({"seed": seed, "num_inference_steps": 4} for seed in range(32))
        )
        before, started = _generating(site), time.monotonic()
        await all_ended(site, ids)
        elapsed = time.monotonic() - started
    assert engine.sizes == [4] * 8
    assert _generating(site) - before > 0.85 * elapsed


def _generating(site: Site) -> float:
    labels = {"pool": POOL, "doing": "generate"}
    value = site.metrics.registry.get_sample_value("darkroom_device_seconds_total", labels)
    return value or 0.0
