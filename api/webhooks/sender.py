"""The sender's loop: lease events, deliver many at once, and find the ends that nobody announced.

Several senders may run: a message is leased by one of them, and announcing twice is harmless.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from api.webhooks.delivering import Delivering
from darkroom.announcing import announce_overdue
from darkroom.clock import Clock
from darkroom.errors import DarkroomError, QueueUnavailable
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger
from darkroom.metrics import WebhookMetrics
from darkroom.queues.base import JobQueue, Lease

LEASED_AT_ONCE = 16

log = get_logger()


@dataclass(frozen=True)
class SenderPace:
    """Deliveries at once; seconds of a lease call's wait, between sweeps, and of a sweep's age."""

    concurrency: int
    poll_seconds: float
    sweep_seconds: float
    unsent_seconds: float


class Sender:
    """Delivers from ``queue`` until it is told to stop."""

    def __init__(
        self,
        queue: JobQueue,
        jobs: JobStore,
        delivering: Delivering,
        clock: Clock,
        metrics: WebhookMetrics,
        pace: SenderPace,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._delivering = delivering
        self._clock = clock
        self._metrics = metrics
        self._pace = pace
        self._stop = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Take no more; `run` returns when what is under way has ended."""
        self._stop.set()

    async def run(self) -> None:
        """Deliver and sweep until `stop`."""
        sweeping = asyncio.create_task(self._sweep_on())
        try:
            while not self._stop.is_set():
                await self._room()
                for lease in await self._lease():
                    self._begin(lease)
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await asyncio.gather(*self._under_way)

    async def sweep(self) -> int:
        """Announce the ends that stayed unannounced; return how many. Raises `DarkroomError`."""
        now = self._clock.now()
        before = now - timedelta(seconds=self._pace.unsent_seconds)
        found = await announce_overdue(self._jobs, self._queue, before, now)
        if found:
            self._metrics.reannounced.inc(found)
            log.info("reannounced", events=found)
        return found

    async def _sweep_on(self) -> None:
        while True:
            try:
                await self.sweep()
            except DarkroomError as error:
                log.warning("webhook_sweep_failed", code=error.code)
            await asyncio.sleep(self._pace.sweep_seconds)

    async def _lease(self) -> Sequence[Lease]:
        """Hold what there is room for. Never cut short: what it had taken would be nobody's."""
        free = self._pace.concurrency - len(self._under_way)
        try:
            return await self._queue.lease(min(free, LEASED_AT_ONCE), self._pace.poll_seconds)
        except QueueUnavailable as error:
            log.warning("queue_unavailable", message=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._pace.poll_seconds)
            return ()

    async def _room(self) -> None:
        """Wait until another delivery may begin."""
        while len(self._under_way) >= self._pace.concurrency:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    def _begin(self, lease: Lease) -> None:
        task = asyncio.create_task(self._deliver(lease))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver(self, lease: Lease) -> None:
        self._metrics.under_way.inc()
        try:
            await self._delivering.handle(lease)
        except Exception as error:  # noqa: BLE001 - one message must not end the sender for all others
            log.error("webhook_crashed", kind=type(error).__name__, message_id=lease.message_id)
        finally:
            self._metrics.under_way.dec()
