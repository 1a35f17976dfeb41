"""A long queue costs what a short one does: ratios, measured in one run on one machine."""

import time
from collections.abc import Callable

import pytest

from emulators.service_bus.codec import Described, ULong, encode
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.message import PROPERTIES, parse
from emulators.service_bus.queue import Queue
from emulators.service_bus.store import MemoryStore

MESSAGE = parse(encode(Described(ULong(PROPERTIES), ["id"])))
ROUNDS = 300


class Held:
    """A queue with so many waiting messages."""

    def __init__(self, count: int) -> None:
        settings = QueueSettings(default_ttl_ms=3_600_000)
        self.queue = Queue("q", settings, lambda: 1_000_000, MemoryStore())
        for _ in range(count):
            self.queue.send(MESSAGE)

    def send(self) -> None:
        self.queue.send(MESSAGE)

    def lease_and_complete(self) -> None:
        entry = self.queue.lease()
        assert entry is not None
        assert entry.lock_token is not None
        self.queue.complete(entry.lock_token)
        self.queue.send(MESSAGE)

    def peek_the_middle(self) -> None:
        self.queue.peek(self.queue._next_sequence - 50, 10)

    def count(self) -> None:
        self.queue.counts()


def seconds(act: Callable[[], None]) -> float:
    """The best of five runs, so that a busy machine tells nothing wrong."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(ROUNDS):
            act()
        best = min(best, time.perf_counter() - start)
    return best


@pytest.mark.parametrize("act", ["send", "lease_and_complete", "peek_the_middle", "count"])
def test_a_hundred_thousand_waiting_messages_slow_nothing(
    act: str, small: Held, large: Held
) -> None:
    ratio = seconds(getattr(large, act)) / seconds(getattr(small, act))
    assert ratio < 5, f"{act} costs {ratio:.1f} times as much with 100,000 messages as with 100"


@pytest.fixture(scope="module")
def small() -> Held:
    return Held(100)


@pytest.fixture(scope="module")
def large() -> Held:
    return Held(100_000)
