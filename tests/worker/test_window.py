"""What a worker holds ahead of its running batch: its fair share, and nothing that others need."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from darkroom.jobs import JobState
from darkroom.queues.base import QueueDepth
from darkroom.queues.memory import MemoryJobQueue
from tests.worker.batching import OpeningEngine, all_ended, held, holds, is_waiting, pool_of
from tests.worker.site import POOL, Site, eventually
from worker.backlog import Backlog
from worker.engines.fake import FakeEngine


async def test_a_worker_holds_no_more_than_its_share_of_the_backlog(memory_site: Site) -> None:
    site, engine = pool_of(memory_site, replicas={"max": 4}), OpeningEngine()
    async with site.worker(engine):
        ids = [await site.submit(seed=seed) for seed in range(16)]
        await is_waiting(engine)
        await holds(site, 16 // 4 - 1)  # the running job is part of the share
        await asyncio.sleep(0.5)
        assert held(site) == 3
        assert len(await site.queue.lease(100, 0)) == 12, "the rest is there for others"
        engine.open()
        await all_ended(site, ids[:4])


async def test_of_a_short_backlog_a_busy_worker_holds_nothing(memory_site: Site) -> None:
    site, busy = pool_of(memory_site, replicas={"max": 2}), OpeningEngine()
    async with site.worker(busy):
        running = await site.submit()
        await is_waiting(busy)
        waiting = await site.submit(seed=8)
        async with site.worker(FakeEngine()):  # free, so it does what waits
            assert (await site.ended(waiting)).status is JobState.SUCCEEDED
        assert held(site) == 0
        busy.open()
        await site.ended(running)
    assert busy.calls == []


async def test_what_other_workers_could_start_is_given_back_uncounted(memory_site: Site) -> None:
    site, engine = pool_of(memory_site, replicas={"max": 2}), OpeningEngine()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(site.worker(engine))
        for seed in range(16):
            await site.submit(seed=seed)
        await is_waiting(engine)
        await holds(site, 16 // 2 - 1)
        others = await site.queue.lease(100, 0)  # another worker, faster than this one
        for lease in others:
            await lease.complete()
        kept = 16 // 2 // 2 - 1
        await holds(site, kept)
        leases = await site.queue.lease(100, 5)
        while len(leases) < 16 // 2 - 1 - kept:  # they come back one by one
            leases = [*leases, *await site.queue.lease(100, 5)]
        assert {lease.delivery_count for lease in leases} == {1}
        for lease in leases:
            await lease.complete()
        engine.open()
        await site.settled()


async def test_a_full_window_is_given_back_at_once_when_the_worker_must_go(site: Site) -> None:
    engine = OpeningEngine()
    async with site.worker(engine) as worker:
        running = await site.submit()
        await is_waiting(engine)
        ids = [await site.submit(seed=seed) for seed in range(20)]
        await holds(site, 20)
        worker.drain.begin("SIGTERM")
        leases = await site.queue.lease(100, 5)
        while len(leases) < 20:
            leases = [*leases, *await site.queue.lease(100, 5)]
        assert not worker.task.done(), "the running job goes on"
        engine.open()
        await worker.task
    assert {lease.message_id for lease in leases} == set(ids)
    assert {lease.delivery_count for lease in leases} == {1}
    assert (await site.jobs.get(running)).status is JobState.SUCCEEDED
    assert {(await site.jobs.get(job_id)).attempts for job_id in ids} == {0}


async def test_held_messages_are_renewed_until_their_turn(memory_site: Site) -> None:
    queue = MemoryJobQueue(lease_seconds=0.6, max_delivery_count=3)
    site = memory_site.changed(queue=queue, renew_seconds=0.1)
    engine = OpeningEngine()
    async with site.worker(engine):
        ids = [await site.submit(seed=seed) for seed in range(4)]
        await is_waiting(engine)
        await holds(site, 3)
        await asyncio.sleep(1.0)  # longer than a lease
        engine.open()
        jobs = await all_ended(site, ids)
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}


class CountedQueue(MemoryJobQueue):
    """A queue that counts how often its depth is asked for."""

    looks = 0

    async def depth(self) -> QueueDepth:
        self.looks += 1
        return await super().depth()


async def test_an_idle_worker_never_counts_the_queue(memory_site: Site) -> None:
    queue = CountedQueue(lease_seconds=5, max_delivery_count=3)
    site = memory_site.changed(queue=queue)
    async with site.worker():
        await asyncio.sleep(1.0)  # five of its polls
    assert queue.looks == 0


async def test_a_busy_worker_counts_it_by_the_clock_not_by_the_job(memory_site: Site) -> None:
    queue = CountedQueue(lease_seconds=5, max_delivery_count=3)
    site = memory_site.changed(queue=queue)
    loop = asyncio.get_running_loop()
    ids = [await site.submit(seed=seed) for seed in range(60)]
    started = loop.time()
    async with site.worker():
        await all_ended(site, ids)
    assert queue.looks <= 1 + (loop.time() - started) / 0.2


async def test_the_gauges_tell_jobs_that_run_from_messages_that_wait(memory_site: Site) -> None:
    site, engine = pool_of(memory_site, concurrency=4), OpeningEngine()

    def running() -> float | None:
        labels = {"pool": POOL}
        return site.metrics.registry.get_sample_value("darkroom_jobs_in_flight", labels)

    async with site.worker(engine):
        ids = [await site.submit()]
        await is_waiting(engine)
        ids += [await site.submit(seed=seed) for seed in range(5)]
        await holds(site, 5)
        assert running() == 1
        engine.open()
        await all_ended(site, ids)
        await site.settled()
        await holds(site, 0)

        async def none_runs() -> bool:
            return running() == 0

        await eventually(none_runs)


@pytest.mark.parametrize(("active", "running", "share"), [(0, 0, 0), (64, 8, 8), (20, 8, 0)])
async def test_the_share_counts_the_running_jobs(active: int, running: int, share: int) -> None:
    queue = MemoryJobQueue(lease_seconds=5, max_delivery_count=3)
    backlog = Backlog(queue, replicas=4, capacity=8, most=64, look_seconds=1)
    backlog.active, backlog.line_empty = active, False
    assert backlog.share(running) == share


async def test_nothing_is_held_ahead_of_an_empty_line() -> None:
    queue = MemoryJobQueue(lease_seconds=5, max_delivery_count=3)
    backlog = Backlog(queue, replicas=1, capacity=8, most=64, look_seconds=1)
    backlog.leased(asked=4, came=4)
    assert backlog.share(0) == 64
    backlog.leased(asked=4, came=0)
    assert backlog.share(0) == 0
