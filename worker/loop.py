"""The worker: leases, holds, runs and settles messages; and drains when it is time to go.

Three things go on at once. The intake leases messages into the window; the conductor takes batches
from it and keeps the device at work; and every message has a task of its own, which renews its
lease, waits for its turn, runs its job and settles it.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from darkroom.clock import Clock
from darkroom.errors import DarkroomError, Preempted, QueueUnavailable, UnsupportedMessage
from darkroom.log import get_logger
from darkroom.messages import decode
from darkroom.queues.base import JobQueue, Lease
from worker.background import beside
from worker.backlog import Backlog
from worker.changes import Changes
from worker.conductor import LEAVING, Conductor
from worker.delivery import Delivery
from worker.dispositions import Abandon, Complete, DeadLetter, Disposition, Gone, settle
from worker.drain import Drain
from worker.failures import CLAIMED, Failures, MustRunAlone
from worker.intake import Intake
from worker.renewal import Renewal
from worker.runner import Runner
from worker.scheduler import Rules
from worker.stopping import StopSignal
from worker.window import Held, Window
from worker.workplace import Workplace

log = get_logger()

DISPOSITIONS: dict[type[Disposition], str] = {
    Abandon: "abandoned",
    DeadLetter: "dead_lettered",
    Gone: "lost",
}
"""The metric's label for each way in which a message does not end completed."""


@dataclass(frozen=True)
class LoopPace:
    """Seconds of one lease call's longest wait, between renewals, and between counts of the queue.

    ``max_delivery_count`` is the queue's own limit, ``window`` the most messages held ahead.
    ``hands_on``: a message given back goes to another worker, at once and for nothing.
    """

    poll_seconds: float
    renew_seconds: float
    max_delivery_count: int
    look_seconds: float = 5.0
    window: int = 64
    hands_on: bool = True


class Worker:
    """Serves one queue until the drain."""

    def __init__(
        self, queue: JobQueue, place: Workplace, failures: Failures, drain: Drain, pace: LoopPace
    ) -> None:
        pool = place.pool
        self._place = place
        self._failures = failures
        self._drain = drain
        self._pace = pace
        self._clock: Clock = place.clock
        self._runner = Runner(place, failures)
        changes, most = Changes(), max(pace.window, pool.concurrency)
        self._window = Window(changes, place.metrics.jobs_held.labels(pool.name))
        backlog = Backlog(queue, pool.replicas.max, pool.concurrency, most, pace.look_seconds)
        self._conductor = Conductor(
            place, self._window, backlog, changes, Rules(most=most), pace.hands_on
        )
        self._intake = Intake(
            queue,
            backlog,
            self._window,
            self._conductor,
            changes,
            self._receive,
            pace.poll_seconds,
            pace.look_seconds,
        )
        self._tasks = asyncio.TaskGroup()
        self._leaving = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether no job is in this worker's hands."""
        return self._window.has_none_in_hands

    async def run(self) -> None:
        """Work until the drain has begun and what was held is settled.

        Raises `DeviceLost`, once its jobs were given back: another process may use the device
        again.
        """
        async with self._tasks as tasks:
            tasks.create_task(self._intake.run(self._leaving), name="intake")
            tasks.create_task(self._conductor.run(tasks), name="conductor")
            await self._time_to_go()
            self._leave()
        if self._place.engine.lost is not None:
            raise self._place.engine.lost

    async def _time_to_go(self) -> None:
        ways = {
            asyncio.ensure_future(event.wait())
            for event in (self._drain.begun, self._conductor.lost)
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()

    def _leave(self) -> None:
        """Lease nothing more, and give back at once what has not begun to run."""
        self._leaving.set()
        self._conductor.leave()
        for held in self._window.line:
            self._window.give_back(held.message.job_id, LEAVING)

    def _receive(self, lease: Lease) -> None:
        """Take a leased message in: from now on a task of its own looks after it."""
        if self._leaving.is_set():
            self._tasks.create_task(self._settle(lease, Abandon(Preempted.code, counted=False)))
            return
        stop = StopSignal()
        renewal = Renewal(lease, stop, self._clock, self._pace.renew_seconds)
        delivery = Delivery(lease, stop, renewal, self._pace.max_delivery_count)
        try:
            held = Held(delivery, decode(lease.body))
        except UnsupportedMessage as error:
            task = self._hold(delivery, self._failures.unreadable(delivery, error))
        else:
            task = self._carry(held) if self._window.take(held) else self._put_off(delivery)
        self._tasks.create_task(task, name=f"message-{lease.message_id}")

    async def _carry(self, held: Held) -> None:
        """Look after a message and its job to the end."""
        try:
            await self._hold(held.delivery, self._serve(held))
        finally:
            if held.delivery.renewal.claim is not None:
                self._place.metrics.jobs_in_flight.labels(self._place.pool.name).dec()
            if held.seat is not None:
                held.seat.close()

    async def _hold(self, delivery: Delivery, work: Coroutine[Any, Any, Disposition]) -> None:
        """Renew one message's lease until ``work`` has said what becomes of it and that is done."""
        lease, renewal = delivery.lease, delivery.renewal
        async with (
            beside(renewal.run(), f"renew-{lease.message_id}"),
            beside(self._when_over(delivery.stop), "grace"),
        ):
            await self._settle(lease, await work)

    async def _serve(self, held: Held) -> Disposition:
        """Wait for a message's turn, and run its job then."""
        try:
            while True:
                try:
                    seat = await held.turn()
                finally:
                    self._window.leave_line(held)
                try:
                    return await self._runner.run(held.delivery, held.message, seat)
                except MustRunAlone:
                    seat.close()
                    held.wait_again()
                if self._leaving.is_set():
                    raise LEAVING
                self._window.wait_in_line(held)
        except DarkroomError as error:  # why it will have no turn here
            job_id = held.message.job_id
            return await self._failures.unclaimed(held.delivery, job_id, error)
        finally:
            self._window.let_go(held)  # before it is settled: it may come back at once
            if held.seat is not None:
                held.seat.leave()  # likewise: its mates need not wait for that

    async def _put_off(self, delivery: Delivery) -> None:
        """Give back the second copy of a message whose job is in this worker's hands already."""
        seconds = self._place.claim_seconds
        await self._settle(delivery.lease, Abandon(CLAIMED, delay_seconds=seconds, counted=False))

    async def _when_over(self, stop: StopSignal) -> None:
        await self._drain.over.wait()
        stop.set(LEAVING)

    async def _settle(self, lease: Lease, disposition: Disposition) -> None:
        """Settle, trying again while the lease lasts; the redelivery of a done job is harmless.

        The lease as it is now: a queue that renews but takes nothing would be tried for ever.
        """
        ends = lease.expires_at
        while True:
            try:
                settled = await settle(lease, disposition)
                break
            except QueueUnavailable:
                if self._clock.now() >= ends:
                    settled = Gone()
                    break
                await asyncio.sleep(min(1.0, self._pace.renew_seconds / 4))
        self._count(lease, settled)

    def _count(self, lease: Lease, settled: Disposition) -> None:
        if isinstance(settled, Complete):
            return
        how, code = DISPOSITIONS[type(settled)], getattr(settled, "code", "LeaseLost")
        self._place.metrics.deliveries_returned.labels(self._place.pool.name, how, code).inc()
        log.info("delivery_returned", job_id=lease.message_id, disposition=how, code=code)
