"""The adapters that the contract suites run over.

An adapter joins a suite by one more function here and its name in the list below it. A suite speaks
of time only through ``advance``: an adapter with a fake clock moves it; one without takes a short
real lease and waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from darkroom.clock import FakeClock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.imagestores.base import ImageStore
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.jobstores.base import JobStore
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues import sqlite as sqlite_queues
from darkroom.queues.base import JobQueue
from darkroom.queues.memory import MemoryJobQueue
from darkroom.sqlite import Database
from tests.azure.emulated import Azurite, fresh_name, running_bus
from tests.kubernetes.cluster import LONGEST_BACK_OFF_SECONDS, PoolOfPods, running_cluster

LEASE_SECONDS = 30.0
MAX_DELIVERY_COUNT = 3


@dataclass(frozen=True)
class Queues:
    """One queue seen by two clients. ``wait_seconds`` is long enough to find what is there.

    ``back_off_seconds`` is how long a delivery that ended without success keeps its message away at
    most: nothing in every adapter but Kubernetes', where the Job controller's back-off cannot be
    avoided, and says so in its docstring.
    """

    queue: JobQueue
    other: JobQueue
    now: Callable[[], datetime]
    advance: Callable[[float], Awaitable[None]]
    lease_seconds: float = LEASE_SECONDS
    max_delivery_count: int = MAX_DELIVERY_COUNT
    wait_seconds: float = 0.0
    many: int = 3_000
    back_off_seconds: float = 0.0


@dataclass(frozen=True)
class JobStores:
    """One store of job records seen by two clients. ``many`` is how many jobs a list is tried on.

    ``advance`` is None where idempotency keys cannot be made to age.
    """

    store: JobStore
    other: JobStore
    now: Callable[[], datetime]
    advance: Callable[[float], Awaitable[None]] | None
    many: int = 300


@dataclass(frozen=True)
class ImageStores:
    """One store of pictures seen by two clients."""

    store: ImageStore
    other: ImageStore


class _MovableClock(FakeClock):
    async def move(self, seconds: float) -> None:
        self.advance(seconds)


@asynccontextmanager
async def memory_queue(folder: Path) -> AsyncIterator[Queues]:
    clock = _MovableClock()
    queue = MemoryJobQueue(
        lease_seconds=LEASE_SECONDS, max_delivery_count=MAX_DELIVERY_COUNT, clock=clock
    )
    yield Queues(queue, queue, clock.now, clock.move)
    await queue.close()


@asynccontextmanager
async def sqlite_queue(folder: Path) -> AsyncIterator[Queues]:
    clock = _MovableClock()
    first, second = (
        sqlite_queues.SqliteJobQueue(
            Database(folder / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable),
            "short",
            lease_seconds=LEASE_SECONDS,
            max_delivery_count=MAX_DELIVERY_COUNT,
            clock=clock,
        )
        for _ in range(2)
    )
    yield Queues(first, second, clock.now, clock.move)
    await first.close()
    await second.close()


@asynccontextmanager
async def memory_jobs(folder: Path) -> AsyncIterator[JobStores]:
    clock = _MovableClock()
    store = MemoryJobStore(clock)
    yield JobStores(store, store, clock.now, clock.move)


@asynccontextmanager
async def sqlite_job_store(folder: Path) -> AsyncIterator[JobStores]:
    clock = _MovableClock()
    first, second = (
        sqlite_jobs.SqliteJobStore(
            Database(folder / "jobs.db", sqlite_jobs.SCHEMA, StoreUnavailable), clock
        )
        for _ in range(2)
    )
    yield JobStores(first, second, clock.now, clock.move)
    await first.close()
    await second.close()


@asynccontextmanager
async def memory_images(folder: Path) -> AsyncIterator[ImageStores]:
    store = MemoryImageStore()
    yield ImageStores(store, store)


@asynccontextmanager
async def filesystem_images(folder: Path) -> AsyncIterator[ImageStores]:
    yield ImageStores(FilesystemImageStore(folder / "img"), FilesystemImageStore(folder / "img"))


@asynccontextmanager
async def service_bus_queue(folder: Path) -> AsyncIterator[Queues]:
    async with running_bus() as bus:
        first, second = bus.open_queue(), bus.open_queue()
        try:
            await first.open()
            yield Queues(first, second, bus.now, bus.advance, wait_seconds=0.2, many=300)
        finally:
            await asyncio.gather(first.close(), second.close())


@asynccontextmanager
async def azure_tables(folder: Path, azurite: Azurite) -> AsyncIterator[JobStores]:
    clock, table = _MovableClock(), fresh_name("jobs")
    first, second = (azurite.job_store(table, clock) for _ in range(2))
    yield JobStores(first, second, clock.now, clock.move)
    await first.close()
    await second.close()


@asynccontextmanager
async def azure_blobs(folder: Path, azurite: Azurite) -> AsyncIterator[ImageStores]:
    container = fresh_name("images")
    first, second = (azurite.image_store(container) for _ in range(2))
    yield ImageStores(first, second)
    await first.close()
    await second.close()


@asynccontextmanager
async def kubernetes_queue(folder: Path) -> AsyncIterator[Queues]:
    async with running_cluster(folder) as cluster:
        first, second = (PoolOfPods(cluster, cluster.queue()) for _ in range(2))
        yield Queues(
            first,
            second,
            cluster.server.clock.now,
            cluster.advance,
            many=100,
            back_off_seconds=LONGEST_BACK_OFF_SECONDS,
        )


QUEUES = {
    "memory": memory_queue,
    "sqlite": sqlite_queue,
    "service_bus": service_bus_queue,
    "kubernetes_jobs": kubernetes_queue,
}
JOB_STORES = {"memory": memory_jobs, "sqlite": sqlite_job_store}
IMAGE_STORES = {"memory": memory_images, "filesystem": filesystem_images}
AZURITE_JOB_STORES = {"azure_tables": azure_tables}
AZURITE_IMAGE_STORES = {"azure_blobs": azure_blobs}
