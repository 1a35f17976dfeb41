"""The JobQueue port: what carries a message from admission to a worker, at least once.

Delivery
    At least once. ``send`` returns when the message is durable (for the adapter's idea of durable;
    each says so). A message is hidden from other consumers while leased. A lease that is neither
    settled nor renewed before ``expires_at`` comes back with ``delivery_count + 1``. When a
    delivery fails for the ``max_delivery_count``-th time the queue itself dead-letters the message
    with reason ``MaxDeliveryCountExceeded``.
Ordering
    Oldest first among the visible, without a promise: redelivered, delayed and competing
    consumers' messages overtake one another.
Idempotency
    A second ``send`` with the id of a message that still waits may be dropped as a duplicate; after
    that it may be delivered again. Consumers must bear both. Settling twice raises `LeaseLost`.
Errors
    `QueueUnavailable` when the queue cannot be reached after the adapter's own retries;
    `LeaseLost` when a lease is no longer ours; `DeadLetterNotFound`.
Units
    Seconds as floats; times in UTC with zone.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from darkroom.messages import Message

MAX_DELIVERY_COUNT_EXCEEDED = "MaxDeliveryCountExceeded"


@dataclass(frozen=True)
class QueueDepth:
    """How many messages there are. ``active`` counts waiting and leased ones alike."""

    active: int
    dead_lettered: int
    scheduled: int


@dataclass(frozen=True)
class DeadLetter:
    """A message that was set aside, and why."""

    message_id: str
    body: bytes
    properties: Mapping[str, str]
    reason: str
    description: str
    delivery_count: int
    enqueued_at: datetime


class Lease(ABC):
    """A temporary exclusive hold on one message.

    ``delivery_count`` is 1 for the first delivery. ``expires_at`` moves with `renew`.
    """

    message_id: str
    body: bytes
    properties: Mapping[str, str]
    delivery_count: int
    expires_at: datetime

    @abstractmethod
    async def renew(self) -> datetime:
        """Extend the hold by the queue's lease time; return the new end. Raises `LeaseLost`."""

    @abstractmethod
    async def complete(self) -> None:
        """Remove the message for good. Raises `LeaseLost`."""

    @abstractmethod
    async def abandon(self, *, delay_seconds: float = 0.0, counted: bool = True) -> None:
        """Give the message back, visible again after ``delay_seconds``.

        With ``counted=False`` this delivery does not count against the limit (preemption).
        Raises `LeaseLost`.
        """

    @abstractmethod
    async def dead_letter(self, reason: str, description: str) -> None:
        """Set the message aside, with a code and a sentence. Raises `LeaseLost`."""


class JobQueue(ABC):
    """One pool's queue (or the webhooks').

    ``holds_ahead``: whether a consumer may hold messages that it does not work on yet. Where it may
    not, a consumer that dies costs a delivery to its own job alone.
    """

    holds_ahead: ClassVar[bool] = True

    @abstractmethod
    async def send(self, message: Message, *, not_before: datetime | None = None) -> None:
        """Enqueue, hidden until ``not_before`` if given. Raises `QueueUnavailable`."""

    @abstractmethod
    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        """Hold up to ``max_messages``; wait up to ``max_wait_seconds`` for the first.

        Returns what is there at once when anything is, never waiting to fill the number; an empty
        sequence when nothing came in time. Raises `QueueUnavailable`.
        """

    @abstractmethod
    async def depth(self) -> QueueDepth:
        """Count the messages. Raises `QueueUnavailable`."""

    @abstractmethod
    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return up to ``limit`` dead letters, oldest first, without removing them."""

    @abstractmethod
    async def resubmit(self, message_id: str) -> None:
        """Move a dead letter back, with a delivery count that starts anew.

        Raises `DeadLetterNotFound`.
        """

    @abstractmethod
    async def discard(self, message_id: str) -> None:
        """Remove a dead letter for good. Raises `DeadLetterNotFound`."""

    async def withdraw(self, message_id: str) -> None:
        """Take back the message of a job that has ended before it ran.

        Only frees what waits for it sooner: a consumer that is handed the message of an ended job
        completes it. Does nothing where a message cannot be found by its id. Raises
        `QueueUnavailable`.
        """
        return None

    async def tend(self) -> None:
        """Do what the queue cannot do by itself; called every few seconds by the API's sweeper.

        Harmless from several processes at once. Raises `QueueUnavailable`.
        """
        return None

    @property
    def exit_status(self) -> int:
        """What a consumer's process that ends in order exits with."""
        return 0

    async def finished(self) -> None:
        """Return when this consumer will be given nothing more, and has settled what it held.

        Never returns where a consumer may always be given another message.
        """
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Release connections. Leases that are open run out by themselves."""
        return None
