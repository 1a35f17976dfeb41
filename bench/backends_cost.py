"""What a call costs with many waiting jobs, beside the same call with few.

Both stores and both queues are there at one time and are called in turns. Half of the jobs are the
listed tenant's, half belong to twenty others. ``submit`` is what an admission does: create with an
idempotency key, send, note that it was sent.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.pipeline.transport import AioHttpTransport
from azure.data.tables.aio import TableServiceClient
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from bench.backends_jobs import make_job
from darkroom.azure_clients import HTTP_RETRIES, emulated_service_bus
from darkroom.clock import SystemClock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.jobs import Job, mark_sent
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.jobstores.azure_tables import AzureTablesJobStore, record_row
from darkroom.jobstores.base import Idempotency, JobFilter, JobStore
from darkroom.messages import message_for
from darkroom.queues import sqlite as sqlite_queues
from darkroom.queues.base import JobQueue
from darkroom.queues.service_bus import ServiceBusJobQueue
from darkroom.sqlite import Database
from emulators.azurite import AzuriteEndpoints
from emulators.service_bus.server import Endpoints

TENANT = "acme"
ROWS_PER_TRANSACTION = 100
OPERATIONS = ("list", "submit", "lease")


class CountingTransport(AioHttpTransport):  # type: ignore[misc]  # untyped in the SDK
    """Counts requests to the tables."""

    requests = 0

    async def send(self, request: Any, **options: Any) -> Any:
        self.requests += 1
        return await super().send(request, **options)


@dataclass
class Filled:
    """A store and a queue with so many waiting jobs. ``transport`` counts, where there is one."""

    store: JobStore
    queue: JobQueue
    transport: CountingTransport | None = None

    async def close(self) -> None:
        await self.store.close()
        await self.queue.close()

    async def list(self) -> None:
        page = await self.store.list(TENANT, JobFilter(), limit=20)
        assert len(page.jobs) == 20

    async def submit(self) -> None:
        job = make_job(TENANT)
        created = await self.store.create(job, Idempotency(uuid.uuid4().hex, "a" * 64))
        await self.queue.send(message_for(job))
        await self.store.compare_and_set(
            mark_sent(created.job, job.created_at), created.job.version
        )

    async def lease(self) -> None:
        (lease,) = await self.queue.lease(1, 5)
        await lease.complete()


@dataclass(frozen=True)
class Cost:
    """Median milliseconds of a call with few and with many jobs, and requests to the store."""

    backend: str
    operation: str
    few_ms: float
    many_ms: float
    few_requests: float | None
    many_requests: float | None

    @property
    def ratio(self) -> float:
        return self.many_ms / self.few_ms


def _jobs(count: int) -> list[Job]:
    return [
        make_job(TENANT if number % 2 else f"tenant{number % 40}", is_sent=True)
        for number in range(count)
    ]


async def fill_sqlite(folder: Path, count: int) -> Filled:
    """Return a database of records and one of messages."""
    jobs_file = Database(folder / f"jobs{count}.db", sqlite_jobs.SCHEMA, StoreUnavailable)
    queue_file = Database(folder / f"queue{count}.db", sqlite_queues.SCHEMA, QueueUnavailable)
    store = sqlite_jobs.SqliteJobStore(jobs_file, SystemClock())
    queue = sqlite_queues.SqliteJobQueue(
        queue_file, "short", lease_seconds=60, max_delivery_count=5
    )
    jobs = _jobs(count)
    for start in range(0, count, 500):
        part = jobs[start : start + 500]
        await asyncio.gather(*(store.create(job) for job in part))
        await asyncio.gather(*(queue.send(message_for(job)) for job in part))
    return Filled(store, queue)


async def fill_azure(azurite: AzuriteEndpoints, endpoints: Endpoints, count: int) -> Filled:
    """Return a table and a queue of the emulators (one named for ``count``)."""
    transport = CountingTransport()
    service = TableServiceClient.from_connection_string(
        azurite.connection_string, transport=transport, **HTTP_RETRIES
    )
    table = f"jobs{count}"
    store = AzureTablesJobStore(service, table=table)
    await store.list(TENANT, JobFilter())  # makes the table
    jobs = _jobs(count)
    await _fill_table(service, table, jobs)
    await _fill_queue(endpoints, f"short{count}", jobs)
    client, admin = emulated_service_bus(
        endpoints.connection_string, endpoints.admin_connection_string
    )
    queue = ServiceBusJobQueue(client, admin, f"short{count}", max_delivery_count=5)
    await queue.open()
    return Filled(store, queue, transport)


async def _fill_table(service: TableServiceClient, table: str, jobs: Sequence[Job]) -> None:
    partitions: dict[str, list[Any]] = {}
    client = service.get_table_client(table)
    for job in jobs:
        row = record_row(job)
        waiting = partitions.setdefault(row["PartitionKey"], [])
        waiting.append(("create", row))
        if len(waiting) == ROWS_PER_TRANSACTION:
            await client.submit_transaction(waiting)
            waiting.clear()
    for waiting in partitions.values():
        if waiting:
            await client.submit_transaction(waiting)


async def _fill_queue(endpoints: Endpoints, name: str, jobs: Sequence[Job]) -> None:
    async with (
        ServiceBusClient.from_connection_string(endpoints.connection_string) as client,
        client.get_queue_sender(name) as sender,
    ):
        for start in range(0, len(jobs), 100):
            ours = [message_for(job) for job in jobs[start : start + 100]]
            await sender.send_messages(
                [ServiceBusMessage(each.encode(), message_id=each.message_id) for each in ours]
            )


async def compare(backend: str, few: Filled, many: Filled, calls: int) -> list[Cost]:
    """Call both in turns, ``calls`` times each operation."""
    costs = []
    for operation in OPERATIONS:
        spent: tuple[list[float], list[float]] = ([], [])
        asked = [0, 0]
        for number in range(calls + 2):
            for which, filled in enumerate((few, many)):
                before = filled.transport.requests if filled.transport else 0
                seconds = await _timed(getattr(filled, operation))
                if number >= 2:  # the first calls open connections
                    spent[which].append(seconds * 1000)
                    asked[which] += (filled.transport.requests if filled.transport else 0) - before
        medians = [statistics.median(each) for each in spent]
        requests = [each / calls if few.transport else None for each in asked]
        costs.append(Cost(backend, operation, *medians, *requests))
    return costs


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began
