import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender

from emulators.service_bus.codec import Described, ULong, encode
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.message import DATA, parse
from emulators.service_bus.server import Emulator, Options, now_ms, serving

QUEUES = {
    "jobs": QueueSettings(max_delivery_count=3, lock_duration_ms=30_000),
    "once": QueueSettings(requires_duplicate_detection=True, duplicate_window_ms=20_000),
    "brief": QueueSettings(default_ttl_ms=60_000, dead_letter_expired=True),
}
LinkClient = ServiceBusSender | ServiceBusReceiver


class Clock:
    """The wall clock, which a test can set forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms

    def advance(self, seconds: float) -> None:
        self.ahead_ms += int(seconds * 1000)


class Bench:
    """A running emulator with the clock under it and clients for it.

    Each test has queues of its own: `jobs` is `jobs-7` on the wire. Senders and receivers that a
    test leaves are closed behind its back, because closing one takes the SDK half a second.
    """

    def __init__(self, emulator: Emulator, clock: Clock, closing: set[asyncio.Task[None]]) -> None:
        self.emulator, self.clock, self._closing = emulator, clock, closing
        self.broker, self.endpoints = emulator.broker, emulator.endpoints
        self._suffix = f"-{next(_numbers)}"
        for name, settings in QUEUES.items():
            self.broker.create_queue(self.name(name), settings)

    def name(self, queue: str) -> str:
        return queue + self._suffix

    def client(self, **options: Any) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self.endpoints.connection_string, **options)

    @asynccontextmanager
    async def sender(
        self, queue: str = "jobs", client: ServiceBusClient | None = None, **options: Any
    ) -> AsyncIterator[ServiceBusSender]:
        made = (client or self.client(**options)).get_queue_sender(self.name(queue))
        async with self._lingering(made):
            yield made

    @asynccontextmanager
    async def receiver(
        self, queue: str = "jobs", retry_total: int = 3, **options: Any
    ) -> AsyncIterator[ServiceBusReceiver]:
        client = self.client(retry_total=retry_total)
        made = client.get_queue_receiver(self.name(queue), **options)
        async with self._lingering(made):
            yield made

    @asynccontextmanager
    async def _lingering(self, link: LinkClient) -> AsyncIterator[None]:
        try:
            await link.__aenter__()
            yield
        finally:
            self._closing.add(asyncio.create_task(link.close()))

    async def send(self, *messages: Any, queue: str = "jobs", **options: Any) -> None:
        async with self.sender(queue, **options) as sender:
            await sender.send_messages(list(messages))

    def put(self, *bodies: str) -> None:
        """Messages in `jobs` without waiting half a second for a sender to open."""
        queue = self.broker.queue(self.name("jobs"))
        assert queue is not None
        for body in bodies:
            queue.send(parse(encode(Described(ULong(DATA), body.encode()))))
        self.broker.tick()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.broker.tick()

    def counts(self, name: str = "jobs") -> tuple[int, int, int]:
        queue = self.broker.queue(self.name(name))
        assert queue is not None
        counts = queue.counts()
        return counts.active, counts.scheduled, counts.dead_lettered


_numbers = itertools.count()
BenchMaker = Callable[..., AbstractAsyncContextManager[Bench]]


@asynccontextmanager
async def bench(options: Options | None = None) -> AsyncIterator[Bench]:
    clock = Clock()
    closing: set[asyncio.Task[None]] = set()
    async with serving(options or Options(), clock_ms=clock) as emulator:
        yield Bench(emulator, clock, closing)
        await asyncio.gather(*closing)


@pytest.fixture
def make_bench() -> BenchMaker:
    return bench


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bench() -> AsyncIterator[Bench]:
    async with bench() as running:
        yield running


@pytest.fixture
def bus(shared_bench: Bench) -> Bench:
    """The module's emulator, with queues for one test. Needs tests on the module's loop."""
    return Bench(shared_bench.emulator, shared_bench.clock, shared_bench._closing)
