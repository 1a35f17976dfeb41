"""What this worker knows of its queue, and how much of it may be held ahead.

Counting messages is a call to the management plane on Service Bus, so it is done seldom, and only
while there is work. What lease calls bring tells the rest: one that brings nothing says that nobody
waits in line.
"""

import time

from darkroom.errors import QueueUnavailable
from darkroom.log import get_logger
from darkroom.queues.base import JobQueue
from worker.scheduler import window_size

log = get_logger()


class Backlog:
    """The pool's backlog as last seen. ``active`` counts waiting and leased messages."""

    def __init__(
        self, queue: JobQueue, replicas: int, capacity: int, most: int, look_seconds: float
    ) -> None:
        self.active = 0
        self.line_empty = True
        self._queue = queue
        self._replicas = replicas
        self._capacity = capacity
        self._most = most
        self._look_seconds = look_seconds
        self._looked_at = -look_seconds

    @property
    def least(self) -> int:
        """How many messages an idle worker asks for: one, or a call's worth if it is the only one.

        A free worker of several takes what it starts at once, and leaves the rest to the others.
        """
        return self._capacity if self._replicas == 1 else 1

    @property
    def is_due(self) -> bool:
        """Whether the messages may be counted again."""
        return time.monotonic() - self._looked_at >= self._look_seconds

    def share(self, running: int) -> int:
        """How many messages may be held beside ``running`` jobs: the fair share, while any wait."""
        return 0 if self.line_empty else self.fair_share(running)

    def fair_share(self, running: int) -> int:
        """The same, were any to wait. A worker that is its pool's only one takes from nobody."""
        if self._replicas == 1:
            return self._most
        return window_size(self.active, self._replicas, self._capacity, self._most, running)

    def leased(self, asked: int, came: int) -> None:
        """Note what a lease call brought."""
        if came == 0:
            self.line_empty = True
        elif came == asked:
            self.line_empty = False

    async def look(self, in_hands: int) -> None:
        """Count the messages; ``in_hands`` of them are this worker's.

        Where that is not possible (it needs a role of its own on Service Bus), a call's worth is
        taken to wait for each worker.
        """
        self._looked_at = time.monotonic()
        try:
            self.active = (await self._queue.depth()).active
        except QueueUnavailable as error:
            log.debug("backlog_unknown", code=error.code)
            self.active = in_hands + self._capacity * self._replicas
        if self.active > in_hands:
            self.line_empty = False
