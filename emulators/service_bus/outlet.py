"""A queue with its receivers: who has credit gets the next message, in turn."""

import uuid
from collections import deque
from collections.abc import Callable
from typing import Protocol

from emulators.service_bus.codec import Symbol
from emulators.service_bus.links import Link
from emulators.service_bus.performatives import AmqpError
from emulators.service_bus.queue import Queue


class Turn(Protocol):
    """The end of a turn of the event loop, when changes are committed and answered."""

    def touch(self, outlet: "Outlet") -> None:
        """The outlet may have something to hand out, or a new time to wake at."""

    def after_commit(self, answer: Callable[[], None]) -> None:
        """Runs `answer` once everything done so far is durable."""


class Outlet:
    """A queue, the links to it, and the receivers that wait for its messages."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.links: set[Link] = set()
        self._receivers: deque[Link] = deque()

    def add(self, link: Link) -> None:
        """A link has attached; a receiving one takes part in the distribution."""
        self.links.add(link)

    def add_receiver(self, link: Link) -> None:
        """A receiver takes part in the distribution."""
        self.links.add(link)
        self._receivers.append(link)

    def remove(self, link: Link) -> None:
        """A link is gone."""
        self.links.discard(link)
        if link in self._receivers:
            self._receivers.remove(link)

    def pump(self) -> None:
        """Hands messages out, one to each receiver with credit in turn, then ends drains."""
        waiting = deque(link for link in self._receivers if link.credit > 0)
        while waiting:
            link = waiting.popleft()
            if not self._deliver(link):
                break
            self._receivers.remove(link)
            self._receivers.append(link)
            if link.credit > 0:
                waiting.append(link)
        for link in list(self._receivers):
            if link.drain:
                link.drained()

    def _deliver(self, link: Link) -> bool:
        entry = self.queue.lease(remove=link.sends_settled)
        if entry is None:
            return False
        tag = entry.lock_token or uuid.uuid4()
        link.send(tag.bytes_le, entry.encoded(), settled=link.sends_settled)
        return True

    def close(self) -> None:
        """The queue is deleted: every link goes."""
        gone = AmqpError(Symbol("amqp:not-found"), f"the entity {self.queue.name} is deleted")
        for link in list(self.links):
            link.detach(gone)
