"""Single faults of the chaos run that no other test injects; docs/chaos.md lists the rest."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from PIL import ImageOps
from PIL.Image import Image

from darkroom.azure_clients import emulated_service_bus
from darkroom.errors import QueueUnavailable
from darkroom.imagestores.base import ImageStore, output_name
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import JobState
from darkroom.messages import JobMessage, message_for
from darkroom.queues.memory import MemoryJobQueue
from darkroom.queues.service_bus import ServiceBusJobQueue
from emulators.processes import free_port
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.server import Options, serving
from tests.azure.emulated import CLOSE_QUICKLY
from tests.worker.batching import pool_of
from tests.worker.site import MAX_DELIVERIES, POOL, CountingEngine, Site, eventually
from tests.worker.test_fence import BLIND, GatedEngine
from tests.worker.test_retries import RawMessage
from worker.engines.base import OnStep
from worker.engines.fake import FakeEngine


async def test_a_broker_that_dies_while_a_job_runs_costs_neither_job_nor_worker(
    memory_site: Site, tmp_path: Path
) -> None:
    """The job ends while its broker is gone; its message is settled after, and the next leased.

    Guards `Worker._settle` (worker/loop.py) and `Intake._take` (worker/intake.py), which outlive
    `QueueUnavailable` (removing either makes this fail; tried).
    """
    options = Options(
        port=free_port(),
        admin_port=free_port(),
        queues={POOL: QueueSettings(max_delivery_count=MAX_DELIVERIES + 1)},
        database=tmp_path / "broker.db",
    )
    async with AsyncExitStack() as broker:
        endpoints = (await broker.enter_async_context(serving(options))).endpoints
        client, admin = emulated_service_bus(
            endpoints.connection_string,
            endpoints.admin_connection_string,
            **CLOSE_QUICKLY,
            retry_total=0,  # an outage longer than the SDK's own patience
        )
        queue = ServiceBusJobQueue(client, admin, POOL, max_delivery_count=MAX_DELIVERIES)
        site, engine = memory_site.changed(queue=queue), GatedEngine(gate_step=4)
        running, next_job = await site.submit(num_inference_steps=4), await site.create()
        async with AsyncExitStack() as workers:
            busy = await workers.enter_async_context(site.worker(engine))
            await engine.at_gate()
            idle = await workers.enter_async_context(site.worker())
            await broker.aclose()
            engine.gate.set()
            assert (await site.ended(running)).status is JobState.SUCCEEDED
            await asyncio.sleep(1)  # one tries to settle and the other to lease, in vain
            async with serving(options):
                await _insist_on_sending(queue, message_for(next_job))
                assert (await site.ended(next_job.id, seconds=40)).status is JobState.SUCCEEDED
                await site.settled(seconds=40)
                assert not busy.task.done()
                assert not idle.task.done()
                await workers.aclose()
                await queue.close()
    assert (await site.jobs.get(running)).attempts == 1


async def _insist_on_sending(queue: ServiceBusJobQueue, message: JobMessage) -> None:
    """Send as the sweeper does: again until it is confirmed."""

    async def sent() -> bool:
        try:
            await queue.send(message)
        except QueueUnavailable:
            return False
        return True

    await eventually(sent, seconds=20, every=0.2)


class SlowImageStore(MemoryImageStore):
    """Pictures whose every put takes ``seconds``."""

    seconds = 0.0

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        await asyncio.sleep(self.seconds)
        await super().put(job_id, name, png, attempt=attempt)


async def test_storage_slower_than_the_lease_costs_no_second_attempt(memory_site: Site) -> None:
    """Another worker stands by for what comes back.

    Guards the renewal of lease and claim until the message is settled: `Renewal.run` in
    `Worker._hold` (worker/loop.py) (removing it makes this fail; tried).
    """
    images = SlowImageStore()
    images.seconds = 2.5
    queue = MemoryJobQueue(lease_seconds=1.0, max_delivery_count=MAX_DELIVERIES + 1)
    site = memory_site.changed(queue=queue, images=images, renew_seconds=0.1, claim_seconds=1.0)
    job_id = await site.submit()
    async with site.worker(), site.worker():
        job = await site.ended(job_id, seconds=20)
        await site.settled()
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)


class HeldImageStore(ImageStore):
    """Pictures that reach the store behind it only once ``gate`` is open."""

    def __init__(self, inner: ImageStore) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()
        self._inner = inner

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        self.waiting.set()
        await self.gate.wait()
        await self._inner.put(job_id, name, png, attempt=attempt)

    async def get(self, job_id: str, name: str) -> bytes:
        return await self._inner.get(job_id, name)

    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str | None:
        return await self._inner.link(job_id, name, lifetime)

    async def delete(self, job_id: str) -> None:
        await self._inner.delete(job_id)


class NegativeEngine(FakeEngine):
    """A fake engine whose pictures can be told from another's."""

    def generate(self, batch: Any, on_step: OnStep) -> list[list[Image]]:
        drawn = super().generate(batch, on_step)
        return [[ImageOps.invert(picture) for picture in pictures] for pictures in drawn]


async def test_a_picture_that_reaches_the_store_late_replaces_no_newer_one(site: Site) -> None:
    """A put that is on its way while its lease runs out lands after the next worker's.

    Guards the attempt fence of the image stores: `MemoryImageStore.put`,
    `FilesystemImageStore._put` (removing it makes this fail; tried). The Azure one is held to it by
    tests/contracts/test_image_store.py.
    """
    held = HeldImageStore(site.images)
    late = site.changed(images=held, renew_seconds=600, claim_seconds=0.1, pace=BLIND)
    job_id = await site.submit()
    async with late.worker(NegativeEngine()):
        await asyncio.wait_for(held.waiting.wait(), 10)
        async with site.worker(FakeEngine()):
            done = await site.ended(job_id, seconds=20)  # after the late one's lease has run out
        picture = await site.images.get(job_id, output_name(0))
        held.gate.set()
    assert (done.status, done.attempts) == (JobState.SUCCEEDED, 2)
    assert await site.images.get(job_id, output_name(0)) == picture
    assert await site.jobs.get(job_id) == done


async def test_a_job_that_is_delivered_twice_at_once_is_run_once(memory_site: Site) -> None:
    """Guards `Failures.may_start` (worker/failures.py), which leaves a job to its claim.

    (Removing it makes this fail; tried.)
    """
    site = pool_of(memory_site, replicas={"max": 2})  # so that neither worker holds both
    site = site.changed(claim_seconds=1.5, renew_seconds=0.2)
    job = await site.create(num_inference_steps=20)
    engines = [CountingEngine(step_seconds=0.05) for _ in range(2)]
    for message_id in (job.id, f"{job.id}.copy"):
        await site.queue.send(RawMessage(message_id, message_for(job).encode()))
    async with site.worker(engines[0]), site.worker(engines[1]):
        done = await site.ended(job.id)
        await site.settled()
    assert (done.status, done.attempts) == (JobState.SUCCEEDED, 1)
    assert sorted(engine.steps for engine in engines) == [0, 20]
