"""The queue inside one process, for tests and for reading: the port's state machine in the plain.

Nothing survives the process. A second send with the id of a message that waits is dropped. A
message that is given back without delay keeps its place.
"""

import asyncio
import heapq
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count, islice

from darkroom.clock import Clock, SystemClock
from darkroom.errors import DeadLetterNotFound, LeaseLost
from darkroom.messages import Message
from darkroom.queues.base import (
    MAX_DELIVERY_COUNT_EXCEEDED,
    DeadLetter,
    JobQueue,
    Lease,
    QueueDepth,
)
from darkroom.queues.doorbell import Doorbell

POLL_SECONDS = 0.05


@dataclass(order=True)
class _Entry:
    visible_at: datetime
    seq: int
    message_id: str
    body: bytes
    properties: Mapping[str, str]
    enqueued_at: datetime
    delivery_count: int = 0


class MemoryJobQueue(JobQueue):
    """One pool's messages: a heap of the waiting, a map of the leased, a map of the dead."""

    def __init__(
        self, *, lease_seconds: float, max_delivery_count: int, clock: Clock | None = None
    ) -> None:
        self.lease_seconds = lease_seconds
        self.max_delivery_count = max_delivery_count
        self.clock = clock or SystemClock()
        self._lock = threading.Lock()  # leases may be renewed from another thread's event loop
        self._numbers = count()
        self._waiting: list[_Entry] = []
        self._waiting_ids: Counter[str] = Counter()
        self._leased: dict[str, tuple[_Entry, MemoryLease]] = {}
        self._dead: dict[str, DeadLetter] = {}
        self._doorbell = Doorbell()

    async def send(self, message: Message, *, not_before: datetime | None = None) -> None:
        """Enqueue; lost with the process."""
        now = self.clock.now()
        entry = _Entry(
            visible_at=max(now, not_before) if not_before else now,
            seq=next(self._numbers),
            message_id=message.message_id,
            body=message.encode(),
            properties=dict(message.properties),
            enqueued_at=now,
        )
        with self._lock:
            self._wait_in_line(entry)
        self._doorbell.ring()

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        """Hold up to ``max_messages``; looks again every 50 ms or at a send."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + max_wait_seconds
        while True:
            with self._lock:
                leases = self._take(max_messages)
            left = ends - loop.time()
            if leases or left <= 0:
                return leases
            await self._doorbell.wait(min(left, POLL_SECONDS))

    async def depth(self) -> QueueDepth:
        """Count the messages."""
        now = self.clock.now()
        with self._lock:
            scheduled = sum(entry.visible_at > now for entry in self._waiting)
            active = len(self._waiting) - scheduled + len(self._leased)
            return QueueDepth(active=active, dead_lettered=len(self._dead), scheduled=scheduled)

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return up to ``limit`` dead letters, oldest first."""
        with self._lock:
            return list(islice(self._dead.values(), limit))

    async def resubmit(self, message_id: str) -> None:
        """Move a dead letter back to the end of the line."""
        now = self.clock.now()
        with self._lock:
            dead = self._pop_dead(message_id)
            entry = _Entry(
                now, next(self._numbers), dead.message_id, dead.body, dead.properties, now
            )
            self._wait_in_line(entry)
        self._doorbell.ring()

    async def discard(self, message_id: str) -> None:
        """Remove a dead letter for good."""
        with self._lock:
            self._pop_dead(message_id)

    def renew(self, token: str) -> datetime:
        """Extend a lease and return its end. Raises `LeaseLost`."""
        with self._lock:
            _, lease = self._held(token)
            lease.expires_at = self.clock.now() + timedelta(seconds=self.lease_seconds)
            return lease.expires_at

    def complete(self, token: str) -> None:
        """Forget a leased message. Raises `LeaseLost`."""
        with self._lock:
            self._held(token)
            del self._leased[token]

    def abandon(self, token: str, delay_seconds: float, counted: bool) -> None:
        """Give a leased message back. Raises `LeaseLost`."""
        with self._lock:
            entry, _ = self._held(token)
            del self._leased[token]
            if not counted:
                entry.delivery_count -= 1
            if delay_seconds > 0:
                entry.visible_at = self.clock.now() + timedelta(seconds=delay_seconds)
            self._give_back(entry, failed=counted)
        self._doorbell.ring()

    def dead_letter(self, token: str, reason: str, description: str) -> None:
        """Set a leased message aside. Raises `LeaseLost`."""
        with self._lock:
            entry, _ = self._held(token)
            del self._leased[token]
            self._set_aside(entry, reason, description)

    def _wait_in_line(self, entry: _Entry) -> None:
        if not self._waiting_ids[entry.message_id]:
            self._push(entry)

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._waiting, entry)
        self._waiting_ids[entry.message_id] += 1

    def _forget_id(self, message_id: str) -> None:
        self._waiting_ids[message_id] -= 1
        if not self._waiting_ids[message_id]:
            del self._waiting_ids[message_id]

    def _take(self, limit: int) -> "list[MemoryLease]":
        now = self.clock.now()
        expired = [each for each in self._leased.values() if each[1].expires_at <= now]
        for entry, lease in sorted(expired, key=lambda each: (each[1].expires_at, each[0].seq)):
            del self._leased[lease.token]
            self._give_back(entry, failed=True)
        leases: list[MemoryLease] = []
        while len(leases) < limit and self._waiting and self._waiting[0].visible_at <= now:
            entry = heapq.heappop(self._waiting)
            self._forget_id(entry.message_id)
            entry.delivery_count += 1
            lease = MemoryLease(self, entry, now + timedelta(seconds=self.lease_seconds))
            self._leased[lease.token] = (entry, lease)
            leases.append(lease)
        return leases

    def _give_back(self, entry: _Entry, *, failed: bool) -> None:
        if failed and entry.delivery_count >= self.max_delivery_count:
            description = f"{entry.delivery_count} deliveries failed"
            self._set_aside(entry, MAX_DELIVERY_COUNT_EXCEEDED, description)
        else:
            self._push(entry)

    def _set_aside(self, entry: _Entry, reason: str, description: str) -> None:
        self._dead.pop(entry.message_id, None)
        self._dead[entry.message_id] = DeadLetter(
            message_id=entry.message_id,
            body=entry.body,
            properties=entry.properties,
            reason=reason,
            description=description,
            delivery_count=entry.delivery_count,
            enqueued_at=entry.enqueued_at,
        )

    def _held(self, token: str) -> "tuple[_Entry, MemoryLease]":
        held = self._leased.get(token)
        if held is None or held[1].expires_at <= self.clock.now():
            raise LeaseLost("the lease is over")
        return held

    def _pop_dead(self, message_id: str) -> DeadLetter:
        dead = self._dead.pop(message_id, None)
        if dead is None:
            raise DeadLetterNotFound(f"no dead letter of message {message_id}")
        return dead


class MemoryLease(Lease):
    """A token that the queue knows until the lease is settled or runs out."""

    def __init__(self, queue: MemoryJobQueue, entry: _Entry, expires_at: datetime) -> None:
        self.message_id = entry.message_id
        self.body = entry.body
        self.properties = entry.properties
        self.delivery_count = entry.delivery_count
        self.expires_at = expires_at
        self.token = uuid.uuid4().hex
        self._queue = queue

    async def renew(self) -> datetime:
        """Extend the hold by the queue's lease time."""
        return self._queue.renew(self.token)

    async def complete(self) -> None:
        """Remove the message for good."""
        self._queue.complete(self.token)

    async def abandon(self, *, delay_seconds: float = 0.0, counted: bool = True) -> None:
        """Give the message back, or set it aside after its last delivery."""
        self._queue.abandon(self.token, delay_seconds, counted)

    async def dead_letter(self, reason: str, description: str) -> None:
        """Set the message aside."""
        self._queue.dead_letter(self.token, reason, description)
