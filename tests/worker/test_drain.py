"""Leaving in order, inside one process; test_processes.py does it with real signals."""

import threading
from collections.abc import Sequence

from darkroom.errors import QueueUnavailable
from darkroom.jobs import JobState
from darkroom.queues.base import Lease
from darkroom.queues.memory import MemoryJobQueue
from tests.worker.site import MAX_DELIVERIES, CountingEngine, Site, eventually
from worker.drain import Drain
from worker.engines.fake import FakeEngine


async def _reached(engine: CountingEngine, step: int) -> None:
    async def there() -> bool:
        return engine.steps >= step

    await eventually(there, every=0.001)


async def test_a_job_that_ends_within_the_grace_period_is_finished(site: Site) -> None:
    engine = CountingEngine(step_seconds=0.02)
    running, waiting = [await site.submit(num_inference_steps=20) for _ in range(2)]
    async with site.worker(engine, grace_seconds=10) as worker:
        await _reached(engine, 2)
        worker.drain.begin("SIGTERM")
        await worker.task
    assert (await site.jobs.get(running)).status is JobState.SUCCEEDED
    assert (await site.jobs.get(waiting)).attempts == 0


async def test_a_job_that_outlasts_the_grace_period_is_given_back_uncounted(site: Site) -> None:
    job_id = await site.submit(num_inference_steps=500)
    for attempt in range(1, MAX_DELIVERIES + 2):  # more often than the delivery limit
        engine = CountingEngine(step_seconds=0.01)
        async with site.worker(engine, grace_seconds=0.05) as worker:
            await _reached(engine, 2)
            worker.drain.begin("SIGTERM")
            await worker.task
        job = await site.jobs.get(job_id)
        assert (job.status, job.attempts) == (JobState.NOT_STARTED, attempt)
        assert job.claim_expires_at is None
    assert not await site.has_image(job_id)
    async with site.worker(FakeEngine()):
        assert (await site.ended(job_id)).status is JobState.SUCCEEDED


class DrainingQueue(MemoryJobQueue):
    """A queue whose message arrives in the very moment in which the worker must go."""

    drain: Drain

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        leases = await super().lease(max_messages, max_wait_seconds)
        self.drain.begin("SIGTERM")
        return leases


async def test_a_message_leased_while_the_drain_begins_is_given_back_at_once(
    memory_site: Site,
) -> None:
    queue = DrainingQueue(lease_seconds=60, max_delivery_count=1)
    site = memory_site.changed(queue=queue)
    queue.drain = Drain(10)
    job_id = await site.submit()
    await site.build(FakeEngine(), queue.drain).run()
    assert (await site.jobs.get(job_id)).attempts == 0
    (lease,) = await MemoryJobQueue.lease(queue, 1, 0)
    assert lease.delivery_count == 1


class UnreachableQueue(MemoryJobQueue):
    """A queue that cannot be reached the first times."""

    outages = 2

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        if self.outages:
            self.outages -= 1
            raise QueueUnavailable("no answer")
        return await super().lease(max_messages, max_wait_seconds)


async def test_a_worker_outlives_an_outage_of_its_queue(memory_site: Site) -> None:
    queue = UnreachableQueue(lease_seconds=5, max_delivery_count=3)
    site = memory_site.changed(queue=queue)
    job_id = await site.submit()
    async with site.worker():
        assert (await site.ended(job_id)).status is JobState.SUCCEEDED


async def test_a_load_that_outlasts_the_grace_period_does_not_keep_its_job(site: Site) -> None:
    loaded, loading = threading.Event(), threading.Event()

    def slow(model: object) -> None:
        loading.set()
        loaded.wait(20)

    job_id = await site.submit()
    async with site.worker(FakeEngine(fail_load=slow), grace_seconds=0.05) as worker:

        async def begun() -> bool:
            return loading.is_set()

        await eventually(begun)
        worker.drain.begin("SIGTERM")
        await worker.task
    loaded.set()
    job = await site.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobState.NOT_STARTED, 1)
