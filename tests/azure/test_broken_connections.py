"""Connections that break, brokers that are away, stores that throttle or lose their answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.core.pipeline.transport import AioHttpTransport

from bench.proxy import FaultProxy
from darkroom.azure_clients import emulated_service_bus
from darkroom.clock import FakeClock
from darkroom.errors import QueueUnavailable, StoreUnavailable, VersionConflict
from darkroom.jobs import Job, claim, mark_sent
from darkroom.jobstores.azure_tables import AzureTablesJobStore
from darkroom.jobstores.base import Idempotency, JobFilter
from darkroom.queues.service_bus import ServiceBusJobQueue
from emulators.processes import free_port
from emulators.service_bus.broker import Client
from emulators.service_bus.links import Refusal
from tests.azure.emulated import (
    CLOSE_QUICKLY,
    MAX_DELIVERY_COUNT,
    Azurite,
    Bus,
    fresh_name,
    running_bus,
)
from tests.samples import PNG, make_job, make_message


@asynccontextmanager
async def behind_a_proxy(bus: Bus) -> AsyncIterator[tuple[FaultProxy, ServiceBusJobQueue]]:
    assert bus.emulator is not None
    endpoints = bus.emulator.endpoints
    async with FaultProxy(endpoints.amqp_port).running() as proxy:
        client, admin = emulated_service_bus(
            endpoints.connection_string.replace(f":{endpoints.amqp_port};", f":{proxy.port};"),
            endpoints.admin_connection_string,
            **CLOSE_QUICKLY,
        )
        queue = ServiceBusJobQueue(client, admin, "short", max_delivery_count=MAX_DELIVERY_COUNT)
        yield proxy, queue
        await queue.close()


async def test_a_lease_survives_its_connection() -> None:
    """The lock is the broker's: it is renewed and settled over the next connection.

    Guards `SERVICE_BUS_RETRIES` (darkroom/azure_clients.py).
    (Removing them makes this fail; tried.)
    """
    async with running_bus() as bus, behind_a_proxy(bus) as (proxy, queue):
        for message in [make_message() for _ in range(3)]:
            await queue.send(message)
        first, second, third = await queue.lease(3, 5)
        assert proxy.cut() > 0
        await first.renew()
        await first.complete()
        proxy.cut()
        await second.complete()
        proxy.cut()
        await third.abandon()
        (again,) = await queue.lease(1, 5)
        assert (again.message_id, again.delivery_count) == (third.message_id, 2)


async def test_a_waiting_lease_call_survives_its_connection() -> None:
    async with running_bus() as bus, behind_a_proxy(bus) as (proxy, queue):
        waiting = asyncio.create_task(queue.lease(1, 30))
        await asyncio.sleep(1)
        proxy.cut()
        await asyncio.sleep(0.1)
        await queue.send(make_message())
        (lease,) = await asyncio.wait_for(waiting, 15)
        await lease.complete()


async def test_a_send_survives_its_connection() -> None:
    async with running_bus() as bus, behind_a_proxy(bus) as (proxy, queue):
        for _ in range(3):
            await queue.send(make_message())
            proxy.cut()
        assert (await queue.depth()).active == 3


async def test_a_broker_that_is_away_is_said_to_be_within_the_stated_time() -> None:
    port = free_port()
    client, admin = emulated_service_bus(
        f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=n;SharedAccessKey=hush;"
        "UseDevelopmentEmulator=true"
    )
    queue = ServiceBusJobQueue(client, admin, "short", max_delivery_count=MAX_DELIVERY_COUNT)
    began = time.monotonic()
    with pytest.raises(QueueUnavailable) as away:
        await queue.send(make_message())
    assert 5 < time.monotonic() - began < 30
    assert "hush" not in repr(away.value)
    await queue.close()


async def test_a_busy_broker_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, refusals = Client.on_attach, 2

    def on_attach(self: Client, link: Any) -> Any:
        nonlocal refusals
        if not link.sending and "short" in str(link.target and link.target.address) and refusals:
            refusals -= 1
            raise Refusal("com.microsoft:server-busy", "try again in a while")
        return usual(self, link)

    monkeypatch.setattr(Client, "on_attach", on_attach)
    async with running_bus() as bus:
        queue = bus.open_queue()
        began = time.monotonic()
        await queue.send(make_message())
        assert time.monotonic() - began > 1  # 0.4 and 0.8 s by our policy
        assert refusals == 0
        assert (await queue.depth()).active == 1
        await queue.close()


class Meddler(AioHttpTransport):  # type: ignore[misc]  # untyped in the SDK
    """A transport that counts requests and, for the next ones that match, answers otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.reads = 0
        self._faults: list[tuple[str, Callable[[Any], Any]]] = []

    def lose_answer(self, method: str) -> None:
        """Let the next request of that method take effect, and break the connection."""

        def broken(response: Any) -> Any:
            raise ServiceResponseError("the connection broke; sig=hush")

        self._faults.append((method, broken))

    def throttle(self, method: str, status: int, times: int) -> None:
        """Answer the next so many requests of that method with an error status."""

        def busy(response: Any) -> Any:
            response.status_code = status
            return response

        self._faults.extend([(method, busy)] * times)

    async def send(self, request: Any, **options: Any) -> Any:
        if request.method == "GET":
            self.reads += 1
        else:
            self.writes += 1
        response = await super().send(request, **options)
        for fault in self._faults:
            if fault[0] == request.method:
                self._faults.remove(fault)
                return fault[1](response)
        return response


@asynccontextmanager
async def meddled_store(azurite: Azurite) -> AsyncIterator[tuple[Meddler, AzureTablesJobStore]]:
    meddler = Meddler()
    store = azurite.job_store(fresh_name("jobs"), FakeClock(), transport=meddler)
    await store.list("acme", JobFilter())  # so that the table is there
    meddler.reads = meddler.writes = 0
    yield meddler, store
    await store.close()


async def test_a_submit_is_two_writes_and_no_read(azurite: Azurite) -> None:
    async with meddled_store(azurite) as (meddler, store):
        created = await store.create(make_job(), Idempotency("order-17", "a" * 64))
        sent = mark_sent(created.job, created.job.created_at)
        await store.compare_and_set(sent, created.job.version)
        assert (meddler.writes, meddler.reads) == (2, 0)


async def test_reading_a_job_and_a_page_is_one_request(azurite: Azurite) -> None:
    async with meddled_store(azurite) as (meddler, store):
        jobs: list[Job] = [(await store.create(make_job())).job for _ in range(40)]
        meddler.reads = 0
        await store.get(jobs[3].id)
        assert meddler.reads == 1
        assert len((await store.list("acme", JobFilter(), limit=20)).jobs) == 20
        assert meddler.reads == 2


async def test_a_create_whose_answer_was_lost_is_known_as_ours(azurite: Azurite) -> None:
    async with meddled_store(azurite) as (meddler, store):
        for idempotency in (None, Idempotency("order-17", "a" * 64)):
            job = make_job()
            meddler.lose_answer("POST")
            created = await store.create(job, idempotency)
            assert created.is_new
            assert await store.get(job.id) == created.job


async def test_a_write_whose_answer_was_lost_is_known_as_ours(azurite: Azurite) -> None:
    """A worker that took its own claim for another's would wait for itself to die.

    Guards the comparison of ``WriteId`` in `AzureTablesJobStore.compare_and_set`.
    (Removing it makes this fail; tried.)
    """
    async with meddled_store(azurite) as (meddler, store):
        job = (await store.create(make_job())).job
        for method in ("POST", "PUT"):  # the first claim clears ``unsent``, the second does not
            meddler.lose_answer(method)
            claimed = claim(job, job.created_at, 60)
            job = await store.compare_and_set(claimed, job.version)
            assert await store.get(job.id) == job
        assert job.attempts == 2


async def test_another_writers_equal_record_is_a_conflict(azurite: Azurite) -> None:
    """Two workers may make the very same record; only one of them has written it."""
    async with meddled_store(azurite) as (_, store):
        job = (await store.create(make_job())).job
        claimed = claim(job, job.created_at, 60)
        await store.compare_and_set(claimed, job.version)
        with pytest.raises(VersionConflict):
            await store.compare_and_set(claimed, job.version)


@pytest.mark.parametrize("status", [429, 503])
async def test_throttling_is_waited_out(azurite: Azurite, status: int) -> None:
    async with meddled_store(azurite) as (meddler, store):
        meddler.throttle("POST", status, times=2)  # which the SDK does not repeat unasked
        created = await store.create(make_job())
        job = created.job
        assert created.is_new
        meddler.throttle("GET", status, times=2)
        meddler.reads = 0
        assert await store.get(job.id) == job
        assert meddler.reads == 3


async def test_throttling_without_end_is_said_without_the_vendors_words(azurite: Azurite) -> None:
    meddler = Meddler()
    options = {"retry_total": 1, "retry_backoff_factor": 0.01, "transport": meddler}
    store = azurite.job_store(fresh_name("jobs"), FakeClock(), **options)
    job = (await store.create(make_job())).job
    for _ in range(5):
        meddler.lose_answer("GET")
    with pytest.raises(StoreUnavailable) as unavailable:
        await store.get(job.id)
    assert "hush" not in str(unavailable.value)
    assert unavailable.value.__cause__ is None
    await store.close()


async def test_pictures_are_stored_in_spite_of_throttling(azurite: Azurite) -> None:
    meddler = Meddler()
    store = azurite.image_store(fresh_name("images"), transport=meddler)
    job = make_job()
    await store.put(job.id, "0.png", PNG)
    meddler.throttle("GET", 503, times=1)
    began = time.monotonic()
    assert await store.get(job.id, "0.png") == PNG
    assert timedelta(seconds=time.monotonic() - began) > timedelta(milliseconds=500)
    meddler.lose_answer("PUT")
    await store.put(job.id, "0.png", PNG + b"2", attempt=2)
    assert await store.get(job.id, "0.png") == PNG + b"2"
    await store.close()
