"""One delivered message on its way through the worker: the lease, its renewal, its stop signal."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from darkroom.errors import StoreUnavailable
from darkroom.queues.base import Lease
from worker.claims import Claim
from worker.renewal import Renewal
from worker.stopping import StopSignal

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
TRIES_ONCE_STOPPED = 3


@dataclass(frozen=True)
class Delivery:
    """What the runner is given. ``max_delivery_count`` is how often a job may be run and fail."""

    lease: Lease
    stop: StopSignal
    renewal: Renewal
    max_delivery_count: int

    @property
    def is_counted_out(self) -> bool:
        """Whether the queue's count leaves no later delivery that may run the job."""
        return self.lease.delivery_count >= self.max_delivery_count

    def is_last(self, attempts: int) -> bool:
        """Whether a job of so many attempts may not be run again.

        The queue counts deliveries, and a worker that dies costs one to every message that it held,
        whether or not it ran the job. So both must say so: the queue, and the record's attempts.
        """
        return self.is_counted_out and attempts >= self.max_delivery_count

    def hold(self, claim: Claim) -> None:
        """From now on, extend ``claim`` with the lease."""
        self.renewal.claim = claim

    async def insist(self, effect: Callable[[], Awaitable[T]], most: float = math.inf) -> T:
        """Do ``effect``, again and again while a store is out and the lease is held.

        ``effect`` must be harmless to repeat. Raises `StoreUnavailable` after ``most`` tries, or
        after a few once the job has been told to stop, and whatever else ``effect`` raises.
        """
        tries = 0
        while True:
            try:
                return await effect()
            except StoreUnavailable:
                tries += 1
                stopped = self.stop.reason is not None
                if tries >= most or (stopped and tries >= TRIES_ONCE_STOPPED):
                    raise
            bound = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(tries, 16))
            seconds = random.uniform(bound / 2, bound)  # noqa: S311 -- jitter
            await (asyncio.sleep(seconds) if stopped else self.stop.pause(seconds))
