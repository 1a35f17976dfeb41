"""What links mean: sending to a queue, receiving from it, and asking a node for something."""

import uuid
from collections.abc import Callable, Mapping

from emulators.service_bus.codec import CodecError
from emulators.service_bus.links import Delivery, Link
from emulators.service_bus.message import Request, encode_response, parse_delivery, parse_request
from emulators.service_bus.outlet import Outlet, Turn
from emulators.service_bus.performatives import (
    Accepted,
    Composite,
    Modified,
    Rejected,
    Released,
)
from emulators.service_bus.queue import LockLostError, Queue, QueueError

DEAD_LETTER_CONDITION = "com.microsoft:dead-letter"
REASON, DESCRIPTION = "DeadLetterReason", "DeadLetterErrorDescription"


class IdleEndpoint:
    """Answers nothing; the base of the others."""

    def on_delivery(self, delivery: Delivery) -> None:
        """Nothing is sent to this end."""

    def on_credit(self) -> None:
        """Credit means nothing on this link: pyamqp never refills it on request links."""

    def on_outcome(self, delivery_id: int, tag: bytes | None, state: object, settled: bool) -> None:
        """Responses are sent settled."""

    def on_detach(self) -> None:
        """Nothing is held."""


class Producer(IdleEndpoint):
    """A sender's link: messages go into the queue and are accepted once they are durable."""

    def __init__(self, link: Link, outlet: Outlet, turn: Turn) -> None:
        self._link, self._outlet, self._turn = link, outlet, turn
        outlet.add(link)

    def on_delivery(self, delivery: Delivery) -> None:
        """Takes a message or, all or nothing, a batch."""
        link, number = self._link, delivery.delivery_id
        if delivery.oversized:
            text = f"the message is larger than {link.max_message_bytes} bytes"
            link.reject(number, "amqp:link:message-size-exceeded", text)
            return
        try:
            messages = parse_delivery(delivery.payload, delivery.message_format)
        except CodecError as error:
            link.reject(number, "amqp:decode-error", str(error))
            return
        for message in messages:
            self._outlet.queue.send(message, message.scheduled_ms)
        if not delivery.settled:
            self._turn.after_commit(lambda: link.settle(number, Accepted()))
        self._turn.touch(self._outlet)

    def on_detach(self) -> None:
        """The link leaves the queue."""
        self._outlet.remove(self._link)


class Consumer(IdleEndpoint):
    """A receiver's link: the outlet hands messages out, the receiver's outcomes come back here."""

    def __init__(self, link: Link, outlet: Outlet, turn: Turn) -> None:
        self._link, self._outlet, self._turn = link, outlet, turn
        outlet.add_receiver(link)

    def on_credit(self) -> None:
        """The receiver wants messages, or none any more."""
        self._turn.touch(self._outlet)

    def on_outcome(self, delivery_id: int, tag: bytes | None, state: object, settled: bool) -> None:
        """Settles by the outcome and, unless the receiver has settled already, echoes it.

        A dead-letter is echoed without its error, or the SDK takes it for a failure.
        """
        link, echo = self._link, _echo(state)
        if echo is None:
            return
        try:
            if tag is None:
                raise LockLostError("the delivery is unknown")
            settle(self._outlet.queue, uuid.UUID(bytes_le=tag), state)
        except QueueError as error:
            condition, text = error.condition, str(error)
            if not settled:
                self._turn.after_commit(lambda: link.reject(delivery_id, condition, text))
        else:
            if not settled:
                self._turn.after_commit(lambda: link.settle(delivery_id, echo))
        self._turn.touch(self._outlet)

    def on_detach(self) -> None:
        """The link leaves the queue; what it had received stays locked until the locks expire."""
        self._outlet.remove(self._link)


def _echo(state: object) -> Composite | None:
    """The outcome as it is confirmed; None for a state that decides nothing yet."""
    if isinstance(state, Rejected):
        return Rejected()
    if isinstance(state, Accepted | Released | Modified):
        return state
    return Released() if state is None else None


def settle(queue: Queue, token: uuid.UUID, state: object) -> None:
    """Applies a receiver's outcome; raises QueueError when the lock is lost."""
    if isinstance(state, Accepted):
        queue.complete(token)
    elif isinstance(state, Rejected):
        queue.reject(token, dead_letter_properties(state))
    elif isinstance(state, Modified) and state.undeliverable_here:
        queue.defer(token)
    elif isinstance(state, Modified):  # Python sets delivery_failed, JS leaves it unset
        queue.abandon(token)
    else:
        queue.release(token)


def dead_letter_properties(state: Rejected) -> Mapping[str, object]:
    """Reason, description and further simple properties out of a rejection."""
    error = state.error
    if error is None:
        return {}
    found: dict[str, object] = {}
    if error.condition != DEAD_LETTER_CONDITION:
        found[REASON] = str(error.condition)
    if error.description:
        found[DESCRIPTION] = str(error.description)
    for key, value in (error.info or {}).items():
        if isinstance(key, str) and isinstance(value, str | int | float):
            found[str(key)] = value
    return found


class RequestEndpoint(IdleEndpoint):
    """The requests' link of `$cbs` or `$management`; answers leave by the responses' link."""

    def __init__(
        self,
        link: Link,
        answer: Callable[[Request], tuple[dict[object, object], object]],
        find_reply_link: Callable[[Link, Request], Link | None],
        turn: Turn,
        outlet: Outlet | None = None,
    ) -> None:
        self._link, self._answer, self._turn = link, answer, turn
        self._find_reply_link, self._outlet = find_reply_link, outlet
        if outlet is not None:
            outlet.add(link)

    def on_delivery(self, delivery: Delivery) -> None:
        """Does what is asked and answers when it is durable."""
        try:
            request = parse_request(delivery.payload)
        except CodecError as error:
            self._link.reject(delivery.delivery_id, "amqp:decode-error", str(error))
            return
        properties, body = self._answer(request)
        if not delivery.settled:
            self._link.settle(delivery.delivery_id, Accepted())
        payload = encode_response(request, properties, body)
        self._turn.after_commit(lambda: self._respond(request, payload))
        if self._outlet is not None:
            self._turn.touch(self._outlet)

    def _respond(self, request: Request, payload: bytes) -> None:
        link = self._find_reply_link(self._link, request)
        if link is not None:
            link.send(uuid.uuid4().bytes, payload, settled=True)

    def on_detach(self) -> None:
        """The link leaves the queue."""
        if self._outlet is not None:
            self._outlet.remove(self._link)


class ResponseEndpoint(IdleEndpoint):
    """The responses' link of a node; `outlet` lets go of it when the queue is deleted."""

    def __init__(self, link: Link, outlet: Outlet | None = None) -> None:
        self._link, self._outlet = link, outlet
        if outlet is not None:
            outlet.add(link)

    def on_detach(self) -> None:
        """The link leaves the queue."""
        if self._outlet is not None:
            self._outlet.remove(self._link)
