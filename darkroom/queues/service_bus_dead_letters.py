"""The dead-letter sub-queue: read by peeking, changed by receiving up to the one that is meant.

Service Bus cannot receive a dead letter by its id. So `take` first peeks for it, which locks
nothing, then receives as many as stand before it, settles the one and gives the others back. It is
for an operator's hand, not for traffic: the cost is the dead letter's place in the line.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from azure.servicebus import ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import ServiceBusError

from darkroom.errors import DeadLetterNotFound, QueueUnavailable
from darkroom.queues.base import DeadLetter
from darkroom.queues.service_bus_messages import Received, dead_letter
from darkroom.queues.service_bus_receiver import ExactReceiver

PAGE = 100
TAKE_WAIT_SECONDS = 2.0
MAX_PLACE = 5_000  # of a dead letter that can be taken; before it, older ones must be settled

Settle = Callable[[ServiceBusReceiver, ServiceBusReceivedMessage], Awaitable[None]]


class DeadLetterBox:
    """The dead letters of one queue; the link opens at the first use. Raises the SDK's errors."""

    def __init__(self, client: ServiceBusClient, queue_name: str, max_delivery_count: int) -> None:
        self._receiver = ExactReceiver(
            client.get_queue_receiver(queue_name, sub_queue=ServiceBusSubQueue.DEAD_LETTER),
            is_shared=lambda: False,
        )
        self._max_delivery_count = max_delivery_count
        self._taking = asyncio.Lock()

    async def read(self, limit: int) -> Sequence[DeadLetter]:
        """Return up to ``limit``, oldest first."""
        peeked = await self._peek(limit)
        return [dead_letter(message, self._max_delivery_count) for message in peeked]

    async def take(self, message_id: str, settle: Settle) -> None:
        """Lock the dead letter of that id and ``settle`` it. Raises `DeadLetterNotFound`."""
        async with self._taking:
            place = await self._place(message_id)
            others: list[ServiceBusReceivedMessage] = []
            try:
                found = await self._lock(message_id, place, others)
                await self._receiver.alone(lambda receiver: settle(receiver, found))
            finally:
                for message in others:
                    await self._release(message)

    async def close(self) -> None:
        """Close the link."""
        await self._receiver.close()

    async def _lock(
        self, message_id: str, place: int, others: list[ServiceBusReceivedMessage]
    ) -> ServiceBusReceivedMessage:
        """Receive up to the one at ``place``; what stands before it goes to ``others``."""
        while len(others) <= place:
            wanted = min(PAGE, place + 1 - len(others))
            batch = await self._receiver.receive(wanted, TAKE_WAIT_SECONDS)
            found = None
            for message in batch:
                if found is None and Received(message).message_id == message_id:
                    found = message
                else:
                    others.append(message)
            if found is not None:
                return found
            if not batch:
                break
        raise QueueUnavailable(f"dead letter {message_id} is in somebody else's hands; try again")

    async def _release(self, message: ServiceBusReceivedMessage) -> None:
        with suppress(ServiceBusError):  # its lock ran out: it is back already
            await self._receiver.alone(lambda receiver: receiver.abandon_message(message))

    async def _peek(self, limit: int) -> list[ServiceBusReceivedMessage]:
        found: list[ServiceBusReceivedMessage] = []
        while len(found) < limit:
            after = (found[-1].sequence_number or 0) if found else 0
            wanted = min(PAGE, limit - len(found))
            page = await self._receiver.alone(
                partial(_peek_page, wanted=wanted, sequence_number=after + 1)
            )
            if not page:
                break
            found.extend(page)
        return found

    async def _place(self, message_id: str) -> int:
        for place, message in enumerate(await self._peek(MAX_PLACE)):
            if Received(message).message_id == message_id:
                return place
        raise DeadLetterNotFound(f"no dead letter of message {message_id}")


async def _peek_page(
    receiver: ServiceBusReceiver, wanted: int, sequence_number: int
) -> list[ServiceBusReceivedMessage]:
    return await receiver.peek_messages(wanted, sequence_number=sequence_number)
