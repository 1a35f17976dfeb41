"""What a call costs with many waiting jobs, beside the same call with few.

Both stores and both queues are there at one time and are called in turns. Half of the jobs are the
listed tenant's, half belong to twenty others. ``submit`` is what an admission does: create with an
idempotency key, send, note that it was sent.
"""

import asyncio
import statistics
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.pipeline.transport import AioHttpTransport
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from bench.backends_jobs import make_job
from darkroom.azure_clients import HTTP_RETRIES, emulated_service_bus
from darkroom.clock import SystemClock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.jobs import Job, mark_sent, tenant_key
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.jobstores.azure_rows import record_row
from darkroom.jobstores.azure_tables import AzureTablesJobStore
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
BARE = ("bare_list", "bare_submit")
"""The same requests by the bare SDK, where the emulator's own time depends on the size."""


class CountingTransport(AioHttpTransport):  # type: ignore[misc]  # untyped in the SDK
    """Counts requests to the tables."""

    requests = 0

    async def send(self, request: Any, **options: Any) -> Any:
        self.requests += 1
        return await super().send(request, **options)


@dataclass
class Filled:
    """A store and a queue with so many waiting jobs; ``bare`` is the same table by the SDK."""

    store: JobStore
    queue: JobQueue
    bare: TableClient | None = None
    transport: CountingTransport | None = None

    @property
    def requests(self) -> int:
        return self.transport.requests if self.transport else 0

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

    async def bare_list(self) -> None:
        assert self.bare is not None
        partition, prefix = tenant_key(TENANT)[0], f"job-{tenant_key(TENANT)}"
        rows = self.bare.query_entities(
            f"PartitionKey eq '{partition}' and RowKey gt '{prefix}-' and RowKey lt '{prefix}.'",
            results_per_page=21,
        )
        page = await anext(rows.by_page())
        assert len([row async for row in page]) == 21

    async def bare_submit(self) -> None:
        """The two transactions of a submit, and its send by the adapter that is compared above."""
        assert self.bare is not None
        job = make_job(TENANT)
        row = record_row(job)
        partition = row["PartitionKey"]
        key = {"PartitionKey": partition, "RowKey": f"key-{uuid.uuid4().hex}", "JobId": job.id}
        unsent = {"PartitionKey": partition, "RowKey": f"unsent-bare-{job.id}"}
        await self.bare.submit_transaction([("create", each) for each in (row, unsent, key)])
        await self.queue.send(message_for(job))
        await self.bare.submit_transaction(
            [("update", row, {"mode": UpdateMode.REPLACE}), ("delete", unsent)]
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
    few_requests: float
    many_requests: float

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
    return Filled(store, queue, service.get_table_client(table), transport)


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
    """Call both in turns, ``calls`` rounds of every operation."""
    operations = OPERATIONS if few.bare is None else (*OPERATIONS, *BARE)
    spent: dict[tuple[str, int], list[float]] = defaultdict(list)
    asked: Counter[tuple[str, int]] = Counter()
    for number in range(calls + 2):
        for operation in operations:
            for which, filled in enumerate((few, many)):
                before = filled.requests
                seconds = await _timed(getattr(filled, operation))
                if number >= 2:  # the first calls open connections
                    spent[operation, which].append(seconds * 1000)
                    asked[operation, which] += filled.requests - before
    return [
        Cost(
            backend,
            operation,
            *(statistics.median(spent[operation, which]) for which in (0, 1)),
            *(asked[operation, which] / calls for which in (0, 1)),
        )
        for operation in operations
    ]


def own_ratio(costs: Sequence[Cost], operation: str) -> float:
    """Return how the adapter's cost over the bare request's grows from few jobs to many."""
    by_name = {cost.operation: cost for cost in costs}
    adapter, bare = by_name[operation], by_name[f"bare_{operation}"]
    return (adapter.many_ms / bare.many_ms) / (adapter.few_ms / bare.few_ms)


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began
