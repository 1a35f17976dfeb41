"""Cancel, deadline and progress, while a job denoises."""

import asyncio
import itertools
import threading
from datetime import timedelta

import pytest

from darkroom.clock import FakeClock
from darkroom.errors import StoreUnavailable
from darkroom.jobs import Job, JobState, Phase
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.messages import message_for
from darkroom.queues.memory import MemoryJobQueue
from tests.worker.site import CountingEngine, Site, eventually
from worker.watch import WatchPace


def reached(engine: CountingEngine, step: int) -> "asyncio.Future[None]":
    async def there() -> bool:
        return engine.steps >= step

    return asyncio.ensure_future(eventually(there, every=0.001))


async def test_a_cancel_stops_the_job_within_two_steps_and_publishes_nothing(site: Site) -> None:
    engine = CountingEngine(step_seconds=0.1)
    job_id = await site.submit(num_inference_steps=100)
    async with site.worker(engine):
        await reached(engine, 3)
        asked = await site.cancel(job_id)
        steps_when_asked = engine.steps
        job = await site.ended(job_id)
        await site.settled()
    assert asked.status is JobState.RUNNING
    assert job.status is JobState.CANCELED
    assert engine.steps <= steps_when_asked + 2
    assert not await site.has_image(job_id)
    assert job.images == ()


async def test_the_next_job_runs_after_a_canceled_one(site: Site) -> None:
    engine = CountingEngine(step_seconds=0.01)
    long = await site.submit(num_inference_steps=200)
    short = await site.submit(num_inference_steps=2)
    async with site.worker(engine):
        await reached(engine, 2)
        await site.cancel(long)
        assert (await site.ended(short)).status is JobState.SUCCEEDED
    assert (await site.jobs.get(long)).status is JobState.CANCELED


async def test_cancel_against_completion_leaves_one_terminal_state_each(site: Site) -> None:
    engine = CountingEngine(step_seconds=0.001)
    ids = [await site.submit(num_inference_steps=5, seed=number) for number in range(100)]
    async with site.worker(engine):
        for job_id in ids:
            await _running_or_over(site, job_id)
            await site.cancel(job_id)
        jobs = [await site.ended(job_id) for job_id in ids]
        await site.settled()
    assert {job.status for job in jobs} <= {JobState.SUCCEEDED, JobState.CANCELED}
    for job in jobs:
        assert bool(job.images) == (job.status is JobState.SUCCEEDED)
        assert await site.jobs.get(job.id) == job


async def _running_or_over(site: Site, job_id: str) -> None:
    async def begun() -> bool:
        return (await site.jobs.get(job_id)).status is not JobState.NOT_STARTED

    await eventually(begun, every=0.001)


async def test_a_deadline_that_passes_while_the_job_runs_fails_it(site: Site) -> None:
    engine = CountingEngine(step_seconds=0.02)
    job_id = await site.submit(num_inference_steps=200)
    soon = site.clock.now() + timedelta(seconds=0.4)
    await site.write(job_id, lambda job: job.model_copy(update={"deadline_at": soon}))
    async with site.worker(engine):
        job = await site.ended(job_id)
        await site.settled()
    assert job.error is not None
    assert (job.status, job.error.code) == (JobState.FAILED, "DeadlineExceeded")
    assert 0 < engine.steps < 200
    assert not await site.has_image(job_id)


class WitnessJobStore(MemoryJobStore):
    """Job records that remember every progress write and count the reads."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: list[Job] = []
        self.reads = 0

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        if job.phase is Phase.GENERATING:
            self.progress.append(job)
        return await super().compare_and_set(job, expected_version)

    async def get(self, job_id: str) -> Job:
        self.reads += 1
        return await super().get(job_id)


def _clocked(site: Site, pace: WatchPace) -> tuple[Site, WitnessJobStore, FakeClock]:
    clock, jobs = FakeClock(), WitnessJobStore()
    queue = MemoryJobQueue(lease_seconds=600, max_delivery_count=3, clock=clock)
    changed = site.changed(
        clock=clock, jobs=jobs, queue=queue, pace=pace, renew_seconds=600, claim_seconds=600
    )
    return changed, jobs, clock


async def test_progress_is_written_at_most_once_a_second(memory_site: Site) -> None:
    site, jobs, clock = _clocked(memory_site, WatchPace(1.0, 3600))
    engine = CountingEngine(step_seconds=0.005, at_step=lambda step: clock.advance(0.3))
    job_id = await site.submit(num_inference_steps=40)
    async with site.worker(engine):
        await site.ended(job_id)
    written = [job.updated_at for job in jobs.progress]
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(written)]
    assert min(gaps) >= 1.0
    assert len(written) >= 5  # twelve seconds went by: it is written, only not often


async def test_progress_only_grows_and_says_how_many_steps_are_done(memory_site: Site) -> None:
    site, jobs, _ = _clocked(memory_site, WatchPace(0.0, 3600))
    job_id = await site.submit(num_inference_steps=10)
    async with site.worker(CountingEngine(step_seconds=0.01)):
        await site.ended(job_id)
    shares = [job.progress for job in jobs.progress]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] < 1
    assert all(job.progress == pytest.approx(0.099 * job.step, abs=1e-3) for job in jobs.progress)


async def test_the_record_is_read_for_a_cancel_no_more_often_than_asked(memory_site: Site) -> None:
    site, jobs, clock = _clocked(memory_site, WatchPace(3600, 1.0))
    engine = CountingEngine(step_seconds=0.002, at_step=lambda step: clock.advance(0.1))
    job = await site.create(num_inference_steps=100)
    engine_steps_seconds = 100 * 0.1
    await site.queue.send(message_for(job))
    async with site.worker(engine):
        await site.settled()
    assert 3 <= jobs.reads <= engine_steps_seconds + 3


class OutOfReachJobStore(MemoryJobStore):
    """Job records that cannot be read or written while the pipeline runs."""

    out = threading.Event()

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        if self.out.is_set():
            raise StoreUnavailable("down")
        return await super().compare_and_set(job, expected_version)


async def test_a_store_that_is_out_while_the_job_denoises_does_not_stop_it(
    memory_site: Site,
) -> None:
    jobs = OutOfReachJobStore()
    site = memory_site.changed(jobs=jobs, pace=WatchPace(0.0, 0.0))

    def outage(step: int) -> None:
        jobs.out.set() if step < 9 else jobs.out.clear()

    job_id = await site.submit(num_inference_steps=10)
    async with site.worker(CountingEngine(step_seconds=0.01, at_step=outage)):
        job = await site.ended(job_id)
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)
