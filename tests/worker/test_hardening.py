"""What a pipelined worker could do wrong under faults that come together, and does not."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from darkroom.errors import DeviceLost, ImageNotFound, QueueUnavailable, StoreUnavailable
from darkroom.generation import InputImage
from darkroom.imagestores.base import INPUT_IMAGE, PREVIEW
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import JobState, claim
from darkroom.queues.base import Lease, QueueDepth
from darkroom.queues.memory import MemoryJobQueue
from tests.samples import PNG, make_generation, make_job
from tests.worker.batching import (
    OpeningEngine,
    all_ended,
    held,
    holds,
    is_waiting,
    pool_of,
)
from tests.worker.site import POOL, Site, eventually
from worker.claims import take
from worker.drain import Drain
from worker.engines.base import GenerationTask
from worker.engines.fake import FakeEngine, fake_picture
from worker.previews import JobPreviews

BAD = "the one at fault"


async def test_a_job_that_costs_its_workers_the_gpu_takes_no_mate_with_it(
    memory_site: Site,
) -> None:
    def fail(call: Sequence[GenerationTask]) -> None:
        if any(task.generation.prompt == BAD for task in call):
            raise DeviceLost("device-side assert")

    site = pool_of(memory_site, concurrency=8)
    bad = await site.submit(prompt=BAD)
    ids = [await site.submit(seed=seed) for seed in range(4)]

    async def all_over() -> bool:
        return all([(await site.jobs.get(one)).status.is_terminal for one in (bad, *ids)])

    while not await all_over():
        drain = Drain(10)
        worker = asyncio.create_task(site.build(FakeEngine(fail=fail), drain).run())

        async def ended(task: asyncio.Task[None] = worker) -> bool:
            return task.done() or await all_over()

        await eventually(ended)
        drain.begin("test over")
        await asyncio.wait([worker])
        assert worker.exception() is None or isinstance(worker.exception(), DeviceLost)
    assert (await site.jobs.get(bad)).status is JobState.FAILED
    mates = [await site.jobs.get(one) for one in ids]
    assert {(job.status, job.attempts <= 2) for job in mates} == {(JobState.SUCCEEDED, True)}


class Unsettling(MemoryJobQueue):
    """A queue that renews everything and, for some messages, settles nothing."""

    stuck: frozenset[str] = frozenset()

    def _refuse(self, token: str) -> None:
        if self._held(token)[0].message_id in self.stuck:
            raise QueueUnavailable("no answer")

    def complete(self, token: str) -> None:
        self._refuse(token)
        super().complete(token)

    def abandon(self, token: str, delay_seconds: float, counted: bool) -> None:
        self._refuse(token)
        super().abandon(token, delay_seconds, counted)


async def test_a_job_that_is_not_run_does_not_keep_its_mates_until_it_is_settled(
    memory_site: Site,
) -> None:
    queue = Unsettling(lease_seconds=30, max_delivery_count=4)
    site, engine = pool_of(memory_site.changed(queue=queue), concurrency=8), OpeningEngine()
    async with site.worker(engine):
        await site.submit(seed=10_000, num_inference_steps=1)
        await is_waiting(engine)
        ids = [await site.submit(seed=seed) for seed in range(3)]
        await holds(site, 3)
        queue.stuck = frozenset(ids[:1])
        await site.cancel(ids[0])
        engine.open()
        jobs = await asyncio.gather(*(site.ended(job_id, seconds=5) for job_id in ids))
        queue.stuck = frozenset()
    assert [job.status for job in jobs] == [JobState.CANCELED, *[JobState.SUCCEEDED] * 2]


async def test_a_drain_ends_though_the_queue_takes_nothing_back(memory_site: Site) -> None:
    """As a full one on Service Bus, where what goes back is a copy; its renewals still work."""
    queue = Unsettling(lease_seconds=0.6, max_delivery_count=4)
    site = memory_site.changed(queue=queue, renew_seconds=0.1)
    engine = OpeningEngine()
    async with site.worker(engine) as worker:
        ids = [await site.submit(seed=seed) for seed in range(3)]
        await is_waiting(engine)
        await holds(site, 2)
        queue.stuck = frozenset(ids)
        worker.drain.begin("SIGTERM")
        engine.open()
        try:
            async with asyncio.timeout(5):
                await asyncio.shield(worker.task)
        finally:
            queue.stuck = frozenset()
    leases = await queue.lease(10, 2)
    assert {lease.message_id for lease in leases} <= set(ids), "and the leases have run out"


async def test_no_preview_is_stored_once_its_job_has_left_the_call(memory_site: Site) -> None:
    """It would be a picture of a job that was canceled and, maybe, erased."""
    site = memory_site
    job = await site.create()
    mine = await take(site.jobs, job.id, site.clock, 3.0, lambda job: None)
    previews = JobPreviews(mine, site.images, wanted=2)
    await previews.close()
    before = asyncio.all_tasks()
    previews.show(fake_picture("p", 1, 64, 64), 0.5)
    for task in asyncio.all_tasks() - before:
        await task
    with pytest.raises(ImageNotFound):
        await site.images.get(job.id, PREVIEW)


class SlowLoading(OpeningEngine):
    """An engine that loads until it is let to go on; its first call has no gate."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting.set()
        self.loading, self.loaded = threading.Event(), threading.Event()

    async def is_loading(self) -> bool:
        return self.loading.is_set()

    def load(self, model: Any, folder: Any) -> None:
        self.loading.set()
        assert self.loaded.wait(20)
        super().load(model, folder)


async def test_a_job_that_stops_while_its_model_loads_is_not_generated(memory_site: Site) -> None:
    engine = SlowLoading()
    site = pool_of(memory_site, concurrency=8).changed(renew_seconds=0.05)
    ids = [await site.submit(seed=seed) for seed in range(3)]
    async with site.worker(engine):
        await eventually(engine.is_loading)
        await site.write(ids[0], lambda job: claim(job, site.clock.now(), claim_seconds=600))

        async def has_left() -> bool:
            labels = {"pool": POOL}
            name = "darkroom_jobs_in_flight"
            return site.metrics.registry.get_sample_value(name, labels) == 2

        await eventually(has_left)
        engine.loaded.set()
        jobs = await all_ended(site, ids[1:])
    assert {job.status for job in jobs} == {JobState.SUCCEEDED}
    assert engine.sizes == [2]


class HalfReadable(MemoryImageStore):
    """A store that cannot read one job's input."""

    unreadable = ""

    async def get(self, job_id: str, name: str) -> bytes:
        if job_id == self.unreadable:
            raise StoreUnavailable("input/output error")
        return await super().get(job_id, name)


async def submit_with_input(site: Site, **fields: Any) -> str:
    now = site.clock.now()
    image = InputImage.model_validate({"sha256": "0" * 64, "width": 64, "height": 64})
    asked = make_generation(
        width=64, height=64, num_inference_steps=4, image=image, strength=0.5, **fields
    )
    job = await site.create(make_job(pool=POOL, generation=asked, created_at=now, updated_at=now))
    await site.send(job)
    return job.id


async def test_a_cancel_is_seen_while_a_model_loads(memory_site: Site) -> None:
    engine = SlowLoading()
    site = memory_site.changed(renew_seconds=0.05)
    job_id = await site.submit()
    async with site.worker(engine):
        await eventually(engine.is_loading)
        await site.cancel(job_id)
        job = await site.ended(job_id, seconds=5)
        engine.loaded.set()
    assert job.status is JobState.CANCELED
    assert not await site.has_image(job_id)


async def test_a_job_whose_input_cannot_be_read_keeps_nobody_waiting(memory_site: Site) -> None:
    images = HalfReadable()
    site = memory_site.changed(images=images)
    job_id = images.unreadable = await submit_with_input(site)
    await images.put(job_id, INPUT_IMAGE, PNG)
    other = await site.submit(seed=3)
    async with site.worker():
        assert (await site.ended(other, seconds=8)).status is JobState.SUCCEEDED
        images.unreadable = ""
        assert (await site.ended(job_id)).status is JobState.SUCCEEDED


class Breaking(MemoryJobQueue):
    """A queue with a fault of its own in one call, which no code expects."""

    broken = ""

    async def depth(self) -> QueueDepth:
        if self.broken == "depth":
            raise ZeroDivisionError
        return await super().depth()

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        if self.broken == "lease":
            raise ZeroDivisionError
        return await super().lease(max_messages, max_wait_seconds)


@pytest.mark.parametrize("what", ["depth", "lease"])
async def test_a_worker_that_meets_an_error_that_nobody_expects_ends_loudly(
    memory_site: Site, what: str
) -> None:
    queue, engine = Breaking(lease_seconds=3, max_delivery_count=4), OpeningEngine()
    site = pool_of(memory_site.changed(queue=queue), replicas={"max": 2})
    worker = asyncio.create_task(site.build(engine, Drain(10)).run())
    await site.submit()
    await is_waiting(engine)
    queue.broken = what
    for seed in range(20):
        await site.submit(seed=seed)
    try:
        async with asyncio.timeout(5):
            with pytest.raises(ExceptionGroup):
                await worker
    finally:
        engine.open()


async def test_one_held_message_goes_to_a_free_worker_too(memory_site: Site) -> None:
    site, busy = pool_of(memory_site, replicas={"max": 4}), OpeningEngine()
    async with site.worker(busy):
        ids = [await site.submit(seed=seed) for seed in range(8)]
        await is_waiting(busy)
        await holds(site, 8 // 4 - 1)
        async with site.worker(FakeEngine()):

            async def all_but_one() -> bool:
                jobs = [await site.jobs.get(job_id) for job_id in ids]
                return sum(job.status.is_terminal for job in jobs) == len(ids) - 1

            try:
                await eventually(all_but_one, seconds=5)
                assert held(site) == 0
            finally:
                busy.open()
