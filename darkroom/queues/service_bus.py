"""Azure Service Bus: one queue per pool, peek-locked.

Durability
    ``send`` returns when the broker has accepted the message (Service Bus stores before it does).
Leases
    A lease is a peek-lock; its length is the queue's ``LockDuration`` (Terraform sets it to the
    workers' ``lease_seconds``; Azure allows 5 to 300 s; a shorter one is warned of). `Lease.renew`
    renews the lock without any limit in number; the worker's renewal decides how long, so the SDK's
    own renewer and its 300 s are not used. Leases may be renewed and settled from any thread's
    event loop: the call hops to the loop on which the queue was first used. No credit is ever left
    at the broker, see `darkroom.queues.service_bus_receiver`.
Retry copies
    Service Bus can neither give a message back for later nor without counting. Both are done by a
    copy: a message is sent with the same body, scheduled if need be, then the original is
    completed. Dying in between leaves two, which the claim bears. The copy's message id is
    ``<job id>~<sequence number of the original>``: not the original's, which duplicate detection
    would swallow, and the same again if the step is repeated. Two application properties hold what
    the copy would lose, the message's own id and how many deliveries counted so far. A copy goes
    to the end of the line.
Delivery limit
    ``max_delivery_count`` over all copies is kept here, since the broker counts each copy anew. The
    queue's own ``MaxDeliveryCount`` should be the same number; it catches consumers that die.
Depth
    Read from the management plane, where ``active`` includes locked messages. The identity needs
    the role Azure Service Bus Data Owner on the queue for it; without it `depth` raises
    `QueueUnavailable`, and everything else works.
Duplicates
    With duplicate detection on, a second send of an id within the window is dropped.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from weakref import WeakSet

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from darkroom import log
from darkroom.azure_clients import queue_errors
from darkroom.clock import Clock, SystemClock
from darkroom.messages import Message
from darkroom.queues.base import (
    MAX_DELIVERY_COUNT_EXCEEDED,
    DeadLetter,
    JobQueue,
    Lease,
    QueueDepth,
)
from darkroom.queues.service_bus_dead_letters import DeadLetterBox
from darkroom.queues.service_bus_messages import Received, outgoing
from darkroom.queues.service_bus_receiver import ExactReceiver
from darkroom.queues.service_bus_sender import BatchingSender

T = TypeVar("T")

SHORTEST_LOCK = 0.8  # of the lease; what is missing may be the clocks' difference


class ServiceBusLease(Lease):
    """A locked message."""

    def __init__(self, queue: "ServiceBusJobQueue", message: ServiceBusReceivedMessage) -> None:
        self.received = Received(message)
        self.message_id = self.received.message_id
        self.body = self.received.body
        self.properties = self.received.properties
        self.delivery_count = self.received.earlier_deliveries + 1
        self.expires_at = message.locked_until_utc or datetime.now(UTC)
        self._message = message
        self._queue = queue

    async def renew(self) -> datetime:
        """Extend the lock by the queue's lock duration."""
        self.expires_at = await self._act(
            "renewing a lease", lambda receiver: receiver.renew_message_lock(self._message)
        )
        return self.expires_at

    async def complete(self) -> None:
        """Remove the message; returns when the broker has confirmed it."""
        await self._act(
            "completing a message", lambda receiver: receiver.complete_message(self._message)
        )

    async def abandon(self, *, delay_seconds: float = 0.0, counted: bool = True) -> None:
        """Give the message back: itself, or as a retry copy when that cannot be said of it."""
        if counted and self.delivery_count >= self._queue.max_delivery_count:
            await self.exceed()
        elif counted and delay_seconds <= 0:
            await self._act(
                "abandoning a message", lambda receiver: receiver.abandon_message(self._message)
            )
        else:
            await self._act(
                "putting a message off",
                lambda receiver: self._put_off(receiver, delay_seconds, counted),
            )

    async def dead_letter(self, reason: str, description: str) -> None:
        """Move the message to the dead-letter sub-queue."""
        await self._act(
            "dead-lettering a message",
            lambda receiver: receiver.dead_letter_message(
                self._message, reason=reason, error_description=description
            ),
        )

    async def exceed(self) -> None:
        """Dead-letter for too many failed deliveries."""
        failed = min(self.delivery_count, self._queue.max_delivery_count)
        await self.dead_letter(MAX_DELIVERY_COUNT_EXCEEDED, f"{failed} deliveries failed")

    async def _put_off(
        self, receiver: ServiceBusReceiver, delay_seconds: float, counted: bool
    ) -> None:
        await receiver.renew_message_lock(self._message)  # or it is no longer ours to copy
        deliveries = self.delivery_count if counted else self.delivery_count - 1
        await self._queue.send_copy(self.received, deliveries, delay_seconds)
        await receiver.complete_message(self._message)

    async def _act(
        self, doing: str, act: Callable[[ServiceBusReceiver], Coroutine[Any, Any, T]]
    ) -> T:
        return await self._queue.act(doing, act)


class ServiceBusJobQueue(JobQueue):
    """One pool's queue. ``client`` and ``admin`` are this queue's own, and closed with it."""

    def __init__(
        self,
        client: ServiceBusClient,
        admin: ServiceBusAdministrationClient,
        queue_name: str,
        *,
        max_delivery_count: int,
        lease_seconds: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.max_delivery_count = max_delivery_count
        self._lease_seconds = lease_seconds
        self._client, self._admin, self._name = client, admin, queue_name
        self._clock = clock or SystemClock()
        self._home: asyncio.AbstractEventLoop | None = None
        self._held: WeakSet[ServiceBusLease] = WeakSet()
        self._sender = BatchingSender(client.get_queue_sender(queue_name))
        self._dead = DeadLetterBox(client, queue_name, max_delivery_count)
        self._receiver = ExactReceiver(
            client.get_queue_receiver(queue_name), is_shared=lambda: len(self._held) > 0
        )

    async def open(self) -> None:
        """Open both links now, side by side, rather than at their first use (0.6 s each)."""
        with queue_errors("connecting"):
            await self._at_home(self._open)

    async def send(self, message: Message, *, not_before: datetime | None = None) -> None:
        """Enqueue; durable when this returns. Sends at one time share a round trip."""
        if not_before is not None and not_before <= self._clock.now():
            not_before = None
        ours, body_bytes = outgoing(message, not_before)
        with queue_errors("sending a message"):
            await self._at_home(lambda: self._sender.send(ours, body_bytes))

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        """Hold up to ``max_messages``. Calls at one time take turns within their own waits."""
        ends = time.monotonic() + max_wait_seconds
        while True:
            with queue_errors("leasing messages"):
                messages = await self._at_home(
                    lambda: self._receiver.receive(max_messages, ends - time.monotonic())
                )
            leases = [ServiceBusLease(self, message) for message in messages]
            self._held.update(leases)
            self._compare_lock(leases)
            good = [lease for lease in leases if lease.delivery_count <= self.max_delivery_count]
            for lease in set(leases) - set(good):
                await lease.exceed()
            if good or not leases:
                return good

    async def depth(self) -> QueueDepth:
        """Count the messages, as the management plane tells it."""
        with queue_errors("counting messages (needs the role Azure Service Bus Data Owner)"):
            counts = await self._at_home(
                lambda: self._admin.get_queue_runtime_properties(self._name)
            )
        return QueueDepth(
            active=counts.active_message_count or 0,
            dead_lettered=counts.dead_letter_message_count or 0,
            scheduled=counts.scheduled_message_count or 0,
        )

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return up to ``limit`` dead letters, oldest first, locking none."""
        with queue_errors("reading dead letters"):
            return await self._at_home(lambda: self._dead.read(limit))

    async def resubmit(self, message_id: str) -> None:
        """Send a copy with a fresh count, then remove the dead letter."""

        async def send_again(
            receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage
        ) -> None:
            await self.send_copy(Received(message), deliveries=0)
            await receiver.complete_message(message)

        with queue_errors("resubmitting a dead letter"):
            await self._at_home(lambda: self._dead.take(message_id, send_again))

    async def discard(self, message_id: str) -> None:
        """Remove a dead letter for good."""
        with queue_errors("discarding a dead letter"):
            await self._at_home(
                lambda: self._dead.take(
                    message_id, lambda box, message: box.complete_message(message)
                )
            )

    async def close(self) -> None:
        """End waiting leases with nothing, let sends finish, close links and clients."""
        await self._at_home(self._close)

    async def act(
        self,
        doing: str,
        act: Callable[[ServiceBusReceiver], Coroutine[Any, Any, T]],
    ) -> T:
        """Settle or renew a lease between the reads of a waiting `lease` call."""
        with queue_errors(doing):
            return await self._at_home(lambda: self._receiver.alone(act))

    async def send_copy(
        self, received: Received, deliveries: int, delay_seconds: float = 0.0
    ) -> None:
        """Send a retry copy, visible after ``delay_seconds``. Raises the SDK's errors."""
        due = self._clock.now() + timedelta(seconds=delay_seconds) if delay_seconds > 0 else None
        await self._sender.send(received.copy(deliveries, due), len(received.body))

    def _compare_lock(self, leases: Sequence[ServiceBusLease]) -> None:
        """Warn, once, of a queue whose lock is shorter than the lease that renewals count on."""
        if not leases or self._lease_seconds is None:
            return
        lock_seconds = (leases[0].expires_at - self._clock.now()).total_seconds()
        if lock_seconds < SHORTEST_LOCK * self._lease_seconds:
            log.get_logger().warning(
                "queue_lock_shorter_than_lease",
                queue=self._name,
                lock_seconds=round(lock_seconds, 1),
                lease_seconds=self._lease_seconds,
            )
        self._lease_seconds = None

    async def _at_home(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``call`` on the loop that the links live on: the first that used this queue."""
        here = asyncio.get_running_loop()
        self._home = self._home or here
        if self._home is here:
            return await call()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._home))

    async def _open(self) -> None:
        await asyncio.gather(self._sender.open(), self._receiver.open())

    async def _close(self) -> None:
        # Side by side: the SDK's keep-alive makes each link take up to a second to close.
        await asyncio.gather(self._receiver.close(), self._sender.close(), self._dead.close())
        await self._client.close()
        await self._admin.close()
