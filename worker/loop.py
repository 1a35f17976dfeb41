"""The worker's loop: lease, hold, run, settle; and drain when it is time to go."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from darkroom.clock import Clock
from darkroom.errors import Preempted, QueueUnavailable
from darkroom.log import get_logger
from darkroom.metrics import WorkerMetrics
from darkroom.queues.base import JobQueue, Lease
from worker.background import beside
from worker.delivery import Delivery
from worker.dispositions import Abandon, Complete, DeadLetter, Disposition, Gone, settle
from worker.drain import Drain
from worker.renewal import renewed
from worker.runner import Runner
from worker.stopping import StopSignal

log = get_logger()

DISPOSITIONS: dict[type[Disposition], str] = {
    Abandon: "abandoned",
    DeadLetter: "dead_lettered",
    Gone: "lost",
}
"""The metric's label for each way in which a message does not end completed."""


@dataclass(frozen=True)
class LoopPace:
    """Seconds of one lease call's longest wait and between renewals; the queue's own limit."""

    poll_seconds: float
    renew_seconds: float
    max_delivery_count: int


class Worker:
    """Serves one queue, one job at a time, until the drain."""

    def __init__(
        self,
        queue: JobQueue,
        runner: Runner,
        drain: Drain,
        clock: Clock,
        metrics: WorkerMetrics,
        pace: LoopPace,
        pool: str,
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._drain = drain
        self._clock = clock
        self._metrics = metrics
        self._pace = pace
        self._pool = pool

    async def run(self) -> None:
        """Work until the drain has begun and what was held is settled.

        Raises `DeviceLost`, once its job was given back: another process may use the device again.
        """
        while not self._drain.begun.is_set():
            for lease in await self._lease():
                if self._drain.begun.is_set():
                    await self._settle(lease, Abandon(Preempted.code, counted=False))
                else:
                    await self._handle(lease)
            if self._runner.device_lost is not None:
                raise self._runner.device_lost

    async def _lease(self) -> Sequence[Lease]:
        """Hold the next message, if one comes in time.

        The call is never cut short: a message that it had just taken would then be nobody's until
        its lease ran out.
        """
        try:
            return await self._queue.lease(1, self._pace.poll_seconds)
        except QueueUnavailable as error:
            log.warning("queue_unavailable", message=error.message)
            await self._pause()
            return ()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.poll_seconds):
                await self._drain.begun.wait()

    async def _handle(self, lease: Lease) -> None:
        """Hold one message while its job runs, then settle it."""
        stop = StopSignal()
        in_flight = self._metrics.jobs_in_flight.labels(self._pool)
        in_flight.inc()
        try:
            async with (
                renewed(lease, stop, self._clock, self._pace.renew_seconds) as renewal,
                beside(self._when_over(stop), "grace"),
            ):
                delivery = Delivery(lease, stop, renewal, self._pace.max_delivery_count)
                disposition = await self._runner.run(delivery)
                await self._settle(lease, disposition)
        finally:
            in_flight.dec()

    async def _when_over(self, stop: StopSignal) -> None:
        await self._drain.over.wait()
        stop.set(Preempted("the worker is leaving"))

    async def _settle(self, lease: Lease, disposition: Disposition) -> None:
        """Settle, trying again while the lease lasts; the redelivery of a done job is harmless."""
        while True:
            try:
                settled = await settle(lease, disposition)
                break
            except QueueUnavailable:
                if self._clock.now() >= lease.expires_at:
                    settled = Gone()
                    break
                await asyncio.sleep(min(1.0, self._pace.renew_seconds / 4))
        self._count(lease, settled)

    def _count(self, lease: Lease, settled: Disposition) -> None:
        if isinstance(settled, Complete):
            return
        how, code = DISPOSITIONS[type(settled)], getattr(settled, "code", "LeaseLost")
        self._metrics.deliveries_returned.labels(self._pool, how, code).inc()
        log.info("delivery_returned", job_id=lease.message_id, disposition=how, code=code)
