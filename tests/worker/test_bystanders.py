"""A job that kills its workers takes no other job with it."""

import signal
from datetime import timedelta
from pathlib import Path

from darkroom.catalog import load_catalog
from darkroom.errors import StoreUnavailable
from darkroom.jobs import Job, JobState, claim
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues.sqlite import SqliteJobQueue
from tests.worker.batching import OpeningEngine, all_ended, holds, is_waiting, pool_of
from tests.worker.killing_worker import POISON
from tests.worker.processes import Machine
from tests.worker.site import MAX_DELIVERIES, POOL, CountingEngine, Site, eventually, write_catalog
from worker.engines.fake import FakeEngine


async def test_jobs_whose_worker_died_while_it_ran_them_run_alone(site: Site) -> None:
    batching, engine = pool_of(site, concurrency=8), OpeningEngine()
    long_ago = batching.clock.now() - timedelta(hours=1)
    ids = [await batching.submit(seed=seed) for seed in range(4)]
    for lease in await batching.queue.lease(100, 1):
        job_id = lease.message_id
        await batching.write(job_id, lambda job: claim(job, long_ago, claim_seconds=1))
        await lease.abandon()  # counted, as when its holder died
    async with batching.worker(engine):
        engine.open()
        jobs = await all_ended(batching, ids)
    assert set(engine.sizes) == {1}
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 2)}


async def test_jobs_that_a_dead_worker_only_held_still_share_a_call(site: Site) -> None:
    batching, engine = pool_of(site, concurrency=8), OpeningEngine()
    ids = [await batching.submit(seed=seed) for seed in range(4)]
    for lease in await batching.queue.lease(100, 1):
        await lease.abandon()
    async with batching.worker(engine):
        await is_waiting(engine)
        mates = batching.metrics.registry.get_sample_value(
            "darkroom_jobs_in_flight", {"pool": POOL}
        )
        engine.open()
        jobs = await all_ended(batching, ids)
    assert mates == 4
    assert {job.attempts for job in jobs} == {1}


async def test_it_is_the_record_that_tells_not_the_message(memory_site: Site) -> None:
    """Which may be a fresh copy, and knows of nothing."""
    site, engine = pool_of(memory_site, concurrency=8), OpeningEngine()
    long_ago = site.clock.now() - timedelta(hours=1)
    async with site.worker(engine):
        await site.submit(seed=1, num_inference_steps=1)
        await is_waiting(engine)
        died = await site.create(seed=2)
        await site.write(died.id, lambda job: claim(job, long_ago, claim_seconds=1))
        await site.send(died)
        ids = [await site.submit(seed=seed) for seed in range(3)]
        await holds(site, 4)
        engine.open()
        jobs = await all_ended(site, [died.id, *ids])
    assert engine.sizes == [3, 1]
    assert [job.attempts for job in jobs] == [2, 1, 1, 1]


async def test_nothing_else_is_claimed_while_such_a_job_runs(memory_site: Site) -> None:
    """Or what kills its worker would cost the next job an attempt each time."""
    engine = CountingEngine(step_seconds=0.02)
    long_ago = memory_site.clock.now() - timedelta(hours=1)
    died = await memory_site.create(num_inference_steps=40)
    await memory_site.write(died.id, lambda job: claim(job, long_ago, claim_seconds=1))
    await memory_site.send(died)
    waiting = await memory_site.submit(seed=8)
    claimed_at: list[int] = []

    async def over() -> bool:
        job = await memory_site.jobs.get(waiting)
        if job.attempts:
            claimed_at.append(engine.steps)
        return job.status.is_terminal

    async with memory_site.worker(engine):
        await eventually(over, every=0.001)
        assert (await memory_site.ended(died.id)).attempts == 2
    assert claimed_at[0] <= 4 or claimed_at[0] >= 40, "not while the other runs"


async def test_a_job_that_was_never_run_does_not_fail_for_want_of_deliveries(site: Site) -> None:
    job_id = await site.submit()
    for _ in range(MAX_DELIVERIES):
        (lease,) = await site.queue.lease(1, 0)
        await lease.abandon()  # each of its holders died, of another job
    async with site.worker(FakeEngine()):
        job = await site.ended(job_id)
        await site.settled()
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)


class UnclaimableJobStore(MemoryJobStore):
    """Job records whose next ``outages`` claims do not get through."""

    outages = 2

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        if self.outages and job.status is JobState.RUNNING:
            self.outages -= 1
            raise StoreUnavailable("down")
        return await super().compare_and_set(job, expected_version)


async def test_a_job_that_could_not_be_claimed_does_not_fail_either(memory_site: Site) -> None:
    site = memory_site.changed(jobs=UnclaimableJobStore())
    job_id = await site.submit()
    for _ in range(MAX_DELIVERIES):
        (lease,) = await site.queue.lease(1, 0)
        await lease.abandon()
    async with site.worker():
        job = await site.ended(job_id)
        await site.settled()
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)


async def test_a_failure_on_a_late_delivery_still_leaves_a_job_its_tries(site: Site) -> None:
    failures = [ValueError("no")] * (MAX_DELIVERIES - 1)

    def fail(batch: object) -> None:
        if failures:
            raise failures.pop()

    job_id = await site.submit()
    for _ in range(MAX_DELIVERIES):
        (lease,) = await site.queue.lease(1, 0)
        await lease.abandon()
    async with site.worker(FakeEngine(fail=fail)):
        job = await site.ended(job_id)
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, MAX_DELIVERIES)


async def test_a_job_that_kills_its_worker_fails_and_its_mates_succeed(
    tmp_path: Path, sqlite_site: Site
) -> None:
    assert isinstance(sqlite_site.queue, SqliteJobQueue)
    machine = Machine(tmp_path)
    write_catalog(tmp_path, max_gpu_seconds=60, concurrency=8)
    machine.settings["DARKROOM_MAX_DELIVERY_COUNT"] = str(MAX_DELIVERIES)
    site = sqlite_site.changed(catalog=load_catalog(tmp_path / "catalog.yaml"))
    ids = [await site.submit(seed=seed) for seed in range(3)]
    poison = await site.submit(prompt=POISON)
    ids += [await site.submit(seed=seed) for seed in range(3, 20)]
    deaths = 0

    async def all_over() -> bool:
        jobs = [await site.jobs.get(job_id) for job_id in [poison, *ids]]
        return all(job.status.is_terminal for job in jobs)

    while not await all_over():
        async with machine.worker("tests.worker.killing_worker") as worker:

            async def dead_or_done() -> bool:
                return worker.process.returncode is not None or await all_over()

            await eventually(dead_or_done, seconds=30, every=0.05)
            deaths += worker.process.returncode == -signal.SIGKILL
    jobs = await all_ended(site, ids)
    failed = await site.jobs.get(poison)
    assert (failed.status, failed.attempts) == (JobState.FAILED, MAX_DELIVERIES)
    assert deaths == MAX_DELIVERIES
    assert {job.status for job in jobs} == {JobState.SUCCEEDED}
