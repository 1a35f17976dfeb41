"""Workers that are Jobs end by themselves, and not before what they hold is done."""

import asyncio

from darkroom.jobs import JobState
from tests.worker.site import CountingEngine, Site
from worker.drain import Drain
from worker.engines.fake import FakeEngine
from worker.idleness import leave_when_idle


async def test_a_worker_without_a_job_leaves_after_its_time(site: Site) -> None:
    drain = Drain(10)
    worker = site.build(FakeEngine(), drain)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run())
        tasks.create_task(leave_when_idle(lambda: worker.is_idle, 0.1, drain))
    assert drain.begun.is_set()


async def test_a_worker_does_its_jobs_before_it_leaves_idle(site: Site) -> None:
    drain, engine = Drain(10), CountingEngine(step_seconds=0.05)
    jobs = [await site.submit(num_inference_steps=10) for _ in range(2)]
    worker = site.build(engine, drain)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run())
        await asyncio.sleep(0)
        tasks.create_task(leave_when_idle(lambda: worker.is_idle, 0.3, drain))
    for job_id in jobs:
        job = await site.jobs.get(job_id)
        assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)


async def test_a_worker_that_may_be_idle_for_ever_stays() -> None:
    drain = Drain(10)
    async with asyncio.timeout(1):
        await leave_when_idle(lambda: True, 0, drain)
    assert not drain.begun.is_set()
