from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from azure.servicebus.aio import ServiceBusClient

from emulators.service_bus.config import QueueSettings
from emulators.service_bus.server import Emulator, Options, now_ms, serving

QUEUES = {
    "jobs": QueueSettings(max_delivery_count=3, lock_duration_ms=30_000),
    "once": QueueSettings(requires_duplicate_detection=True, duplicate_window_ms=20_000),
    "brief": QueueSettings(default_ttl_ms=60_000, dead_letter_expired=True),
}


class Clock:
    """The wall clock, which a test can set forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms

    def advance(self, seconds: float) -> None:
        self.ahead_ms += int(seconds * 1000)


class Bench:
    """A running emulator with the clock under it and clients for it."""

    def __init__(self, emulator: Emulator, clock: Clock) -> None:
        self.emulator, self.clock = emulator, clock
        self.broker, self.endpoints = emulator.broker, emulator.endpoints

    def client(self, **options: object) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self.endpoints.connection_string, **options)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.broker.tick()

    def counts(self, name: str = "jobs") -> tuple[int, int, int]:
        queue = self.broker.queue(name)
        assert queue is not None
        counts = queue.counts()
        return counts.active, counts.scheduled, counts.dead_lettered


@asynccontextmanager
async def bench(options: Options = Options(queues=QUEUES)) -> AsyncIterator[Bench]:  # noqa: B008
    clock = Clock()
    async with serving(options, clock_ms=clock) as emulator:
        yield Bench(emulator, clock)


@pytest.fixture
async def bus() -> AsyncIterator[Bench]:
    async with bench() as running:
        yield running


BenchMaker = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def make_bench() -> BenchMaker:
    return bench
