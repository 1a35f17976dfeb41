"""Windows on Service Bus: giving a held message back sends a copy, and none may be lost by it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from darkroom.catalog import load_catalog
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import JobState
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues.service_bus import ServiceBusJobQueue
from tests.azure.emulated import Bus, running_bus
from tests.worker.batching import OpeningEngine, all_ended, holds, is_waiting, pool_of
from tests.worker.site import Site, write_catalog
from worker.engines.fake import FakeEngine


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with running_bus() as running:
        yield running


@pytest.fixture
async def two(bus: Bus) -> AsyncIterator[tuple[ServiceBusJobQueue, ServiceBusJobQueue]]:
    """Two workers' clients of a queue with duplicate detection."""
    queues = bus.open_queue("once"), bus.open_queue("once")
    await asyncio.gather(*(queue.open() for queue in queues))
    yield queues
    await asyncio.gather(*(queue.close() for queue in queues))


def site_on(queue: ServiceBusJobQueue, folder: Path) -> Site:
    return Site(
        queue=queue,
        jobs=MemoryJobStore(),
        images=MemoryImageStore(),
        catalog=load_catalog(write_catalog(folder)),
        claim_seconds=30.0,
        renew_seconds=10.0,
    )


async def test_a_window_that_goes_back_again_and_again_is_no_duplicate(
    two: tuple[ServiceBusJobQueue, ServiceBusJobQueue], tmp_path: Path
) -> None:
    site = pool_of(site_on(two[0], tmp_path), concurrency=2)
    ids = [await site.submit(seed=seed) for seed in range(9)]
    for _ in range(4):  # more often than a message may be delivered
        engine = OpeningEngine()
        async with site.worker(engine, grace_seconds=0.0) as worker:
            await is_waiting(engine)
            await holds(site, len(ids) - 2)
            worker.drain.begin("SIGTERM")
            engine.open()
            await worker.task
    async with site.changed(queue=two[1]).worker(FakeEngine()):
        jobs = await all_ended(site, ids)
        await site.settled()
    assert {job.status for job in jobs} == {JobState.SUCCEEDED}
    depth = await two[1].depth()
    assert (depth.active, depth.dead_lettered, depth.scheduled) == (0, 0, 0)


async def test_what_is_handed_on_by_every_free_worker_is_run_all_the_same(
    two: tuple[ServiceBusJobQueue, ServiceBusJobQueue], tmp_path: Path
) -> None:
    site = pool_of(site_on(two[0], tmp_path), replicas={"max": 9})  # active is below that
    async with (
        site.worker(FakeEngine()),
        site.changed(queue=two[1]).worker(FakeEngine()),
    ):
        ids = [await site.submit(seed=seed) for seed in range(3)]
        jobs = await all_ended(site, ids)
        await site.settled()
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}
    assert site.returned("abandoned", "Preempted") >= 1, "it was handed on"
