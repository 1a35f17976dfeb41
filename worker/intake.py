"""Leases messages: never more than this worker's share of the backlog, and never for an idle wait.

With nothing to do it waits for one message (or a call's worth, where it is the pool's only worker).
While a batch runs it fills the window up to the fair share of the backlog; of a short backlog it
takes something only when the running batch is about to end, so that no message waits here that a
free worker could start.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from darkroom.errors import QueueUnavailable
from darkroom.log import get_logger
from darkroom.queues.base import JobQueue, Lease
from worker.backlog import Backlog
from worker.changes import Changes
from worker.conductor import Conductor
from worker.window import Window

log = get_logger()


class Intake:
    """Fills the window through ``receive``, which is given every lease."""

    def __init__(
        self,
        queue: JobQueue,
        backlog: Backlog,
        window: Window,
        conductor: Conductor,
        changes: Changes,
        receive: Callable[[Lease], None],
        poll_seconds: float,
        look_seconds: float,
    ) -> None:
        self._queue = queue
        self._backlog = backlog
        self._window = window
        self._conductor = conductor
        self._changes = changes
        self._receive = receive
        self._poll_seconds = poll_seconds
        self._look_seconds = look_seconds
        self._may_probe = False  # once per count

    async def run(self, leaving: asyncio.Event) -> None:
        """Lease until ``leaving`` is set. What a call brings that outlasts it is received too."""
        while not leaving.is_set():
            seconds = self._conductor.seconds_to_choice()
            if self._conductor.running:
                await self._look_if_due()
                seconds = self._conductor.seconds_to_choice()
            wanted = self._wanted(seconds)
            if rest := self._conductor.seconds_to_rest():
                await self._changes.wait(rest)
            elif wanted > 0:
                await self._take(wanted, self._patience(seconds), leaving)
            elif self._may_probe and self._is_over_share():
                await self._probe(leaving)
            else:
                await self._changes.wait(self._pause(seconds))

    def _wanted(self, seconds_to_choice: float) -> int:
        """How many messages to ask for now."""
        wanted = self._backlog.share(self._conductor.running) - len(self._window)
        if seconds_to_choice == 0 and not len(self._window):
            return max(wanted, self._backlog.least)
        return wanted

    def _patience(self, seconds_to_choice: float) -> float:
        """How long to wait for a message: only when it could start at once."""
        return self._poll_seconds if seconds_to_choice == 0 and not len(self._window) else 0.0

    def _pause(self, seconds_to_choice: float) -> float:
        """When to look again if nothing changes: when something must be there to choose from."""
        soon = math.inf if len(self._window) else seconds_to_choice
        return min(soon, self._look_seconds) if self._conductor.running else soon

    async def _take(self, wanted: int, wait_seconds: float, leaving: asyncio.Event) -> None:
        """Lease once.

        The call is never cut short: a message that it had just taken would then be nobody's until
        its lease ran out.
        """
        try:
            leases: Sequence[Lease] = await self._queue.lease(wanted, wait_seconds)
        except QueueUnavailable as error:
            log.warning("queue_unavailable", message=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await leaving.wait()
            return
        for lease in leases:
            self._receive(lease)
        self._backlog.leased(wanted, len(leases))
        if len(leases) == wanted and not leaving.is_set():
            await self._look_if_due()

    async def _look_if_due(self) -> None:
        """Count the queue's messages, but not often."""
        if self._backlog.is_due:
            await self._backlog.look(len(self._window) + self._conductor.running)
            self._may_probe = True

    async def _probe(self, leaving: asyncio.Event) -> None:
        """With more than the fair share in hand: if nobody waits in the queue, give back."""
        self._may_probe = False
        await self._take(1, 0.0, leaving)
        if self._backlog.line_empty:
            self._conductor.give_back_surplus()

    def _is_over_share(self) -> bool:
        """Whether more is held than the share, while a batch runs: else it is about to start."""
        running = self._conductor.running
        return running > 0 and len(self._window) > self._backlog.fair_share(running)
