"""The dead-letter sub-queue: read by peeking, changed by receiving up to the one that is meant.

Service Bus cannot receive a dead letter by its id. So `take` first peeks for it, which locks
nothing, then receives as many as stand before it, settles the one and gives the others back. It is
for an operator's hand, not for traffic: the cost is the dead letter's place in the line.
"""

from collections.abc import Awaitable, Callable, Sequence

from azure.servicebus import ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from darkroom.errors import DeadLetterNotFound, QueueUnavailable
from darkroom.queues.base import DeadLetter
from darkroom.queues.service_bus_messages import Received, dead_letter
from darkroom.queues.service_bus_receiver import ExactReceiver

PAGE = 100
TAKE_WAIT_SECONDS = 2.0
MAX_PLACE = 5_000  # of a dead letter that can be taken; before it, older ones must be settled

Settle = Callable[[ServiceBusReceiver, ServiceBusReceivedMessage], Awaitable[None]]


class DeadLetterBox:
    """The dead letters of one queue. Raises the SDK's errors."""

    def __init__(self, client: ServiceBusClient, queue_name: str, max_delivery_count: int) -> None:
        self._client, self._name = client, queue_name
        self._max_delivery_count = max_delivery_count

    async def read(self, limit: int) -> Sequence[DeadLetter]:
        """Return up to ``limit``, oldest first."""
        async with self._open() as receiver:
            return [
                dead_letter(message, self._max_delivery_count)
                for message in await _peek(receiver, limit)
            ]

    async def take(self, message_id: str, settle: Settle) -> None:
        """Lock the dead letter of that id and ``settle`` it. Raises `DeadLetterNotFound`."""
        async with self._open() as receiver:
            place = await _place(receiver, message_id)
            others: list[ServiceBusReceivedMessage] = []
            try:
                while len(others) <= place:
                    wanted = min(PAGE, place + 1 - len(others))
                    exact = ExactReceiver(receiver, is_shared=lambda: False)
                    batch = await exact.receive(wanted, TAKE_WAIT_SECONDS)
                    if not batch:
                        break
                    for message in batch:
                        if Received(message).message_id == message_id:
                            await settle(receiver, message)
                            return
                        others.append(message)
            finally:
                for message in others:
                    if not message._settled:
                        await receiver.abandon_message(message)
            raise QueueUnavailable(
                f"dead letter {message_id} is in somebody else's hands; try again"
            )

    def _open(self) -> ServiceBusReceiver:
        return self._client.get_queue_receiver(self._name, sub_queue=ServiceBusSubQueue.DEAD_LETTER)


async def _peek(receiver: ServiceBusReceiver, limit: int) -> list[ServiceBusReceivedMessage]:
    found: list[ServiceBusReceivedMessage] = []
    after = 0
    while len(found) < limit:
        page = await receiver.peek_messages(
            min(PAGE, limit - len(found)), sequence_number=after + 1
        )
        if not page:
            break
        found.extend(page)
        after = page[-1].sequence_number or 0
    return found


async def _place(receiver: ServiceBusReceiver, message_id: str) -> int:
    for place, message in enumerate(await _peek(receiver, MAX_PLACE)):
        if Received(message).message_id == message_id:
            return place
    raise DeadLetterNotFound(f"no dead letter of message {message_id}")
