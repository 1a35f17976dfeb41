"""How long a failed delivery waits before the next: per error type, doubling, with full jitter.

Full jitter (a uniform draw from zero to the bound) spreads a crowd that failed together best.
Source: AWS Architecture Blog, "Exponential Backoff And Jitter", 2015.
"""

import random
from dataclasses import dataclass

from darkroom.errors import (
    DarkroomError,
    OutOfMemory,
    QueueUnavailable,
    StoreUnavailable,
    UnsupportedMessage,
)

BASES: dict[type[DarkroomError], float] = {
    OutOfMemory: 2.0,  # room comes when another job ends
    StoreUnavailable: 2.0,
    QueueUnavailable: 2.0,
    UnsupportedMessage: 8.0,  # a roll-out brings workers that know it: minutes, not seconds
}
"""Multiples of the base, by the type of the error; 1 for the rest."""


@dataclass(frozen=True)
class Backoff:
    """Bounds in seconds."""

    base_seconds: float
    cap_seconds: float

    def bound(self, error: DarkroomError, delivery_count: int) -> float:
        """The longest wait, in seconds, after the ``delivery_count``-th delivery failed so."""
        base = self.base_seconds * BASES.get(type(error), 1.0)
        return float(min(self.cap_seconds, base * 2 ** min(delivery_count - 1, 32)))

    def delay(self, error: DarkroomError, delivery_count: int) -> float:
        """Draw the wait, in seconds."""
        return random.uniform(0.0, self.bound(error, delivery_count))  # noqa: S311 -- jitter
