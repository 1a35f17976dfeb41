"""The `$management` node of an entity: what the SDKs ask for by request and response.

Source: the Azure SDKs' requests, operation by operation. Sessions are refused.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from emulators.service_bus.codec import Array, CodecError, Int, Long, Symbol, Timestamp
from emulators.service_bus.message import Request, parse
from emulators.service_bus.queue import Entry, Queue, QueueError

MAX_PEEK: Final = 250
"""Most messages of one peek, as in Azure."""

MAX_PEEK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a management request; `status` as in HTTP."""

    status: int = 200
    description: str = "OK"
    body: object = None
    condition: str | None = None

    def properties(self) -> dict[object, object]:
        """As application properties; their names differ from those of $cbs."""
        found: dict[object, object] = {
            "statusCode": Int(self.status),
            "statusDescription": self.description,
        }
        if self.condition:
            found["errorCondition"] = Symbol(self.condition)
        return found


class BadRequest(Exception):
    """An argument is missing or of the wrong type; the message names it."""


def handle(queue: Queue, request: Request) -> Response:
    """Does what the request asks of the queue; never raises for a request's own faults."""
    operation = str(request.properties.get("operation") or "")
    run = _OPERATIONS.get(operation.removeprefix("com.microsoft:"))
    if run is None:
        text = f"the operation {operation!r} is not implemented by this emulator"
        return Response(501, text, condition="amqp:not-implemented")
    try:
        return run(queue, request.body if isinstance(request.body, dict) else {})
    except QueueError as error:
        return Response(error.status, str(error), condition=error.condition)
    except (BadRequest, CodecError) as error:
        return Response(400, str(error), condition="com.microsoft:argument-error")


def _numbers(body: dict[object, object], name: str) -> list[int]:
    value = body.get(name)
    items = value.items if isinstance(value, Array) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, int) for item in items):
        raise BadRequest(f"{name} must be an array of long")
    return [int(item) for item in items]


def _number(body: dict[object, object], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int):
        raise BadRequest(f"{name} must be a number")
    return int(value)


def _tokens(body: dict[object, object]) -> list[uuid.UUID]:
    value = body.get("lock-tokens")
    items = value.items if isinstance(value, Array) else value
    if not isinstance(items, list | tuple) or not all(isinstance(i, uuid.UUID) for i in items):
        raise BadRequest("lock-tokens must be an array of uuid")
    return [item for item in items if isinstance(item, uuid.UUID)]


def _schedule(queue: Queue, body: dict[object, object]) -> Response:
    wanted = body.get("messages")
    if not isinstance(wanted, list):
        raise BadRequest("messages must be a list")
    messages = []
    for item in wanted:
        raw = item.get("message") if isinstance(item, dict) else None
        if not isinstance(raw, bytes):
            raise BadRequest("messages[].message must be binary")
        messages.append(parse(raw))
    numbers = tuple(Long(queue.send(message, message.scheduled_ms)) for message in messages)
    return Response(body={"sequence-numbers": Array(Long, numbers)})


def _cancel(queue: Queue, body: dict[object, object]) -> Response:
    queue.cancel_scheduled(_numbers(body, "sequence-numbers"))
    return Response()


def _renew(queue: Queue, body: dict[object, object]) -> Response:
    until = tuple(Timestamp(queue.renew(token)) for token in _tokens(body))
    return Response(body={"expirations": Array(Timestamp, until)})


def _peek(queue: Queue, body: dict[object, object]) -> Response:
    first, count = _number(body, "from-sequence-number"), _number(body, "message-count")
    found = queue.peek(first, min(max(count, 0), MAX_PEEK))
    if not found:
        return Response(204, "No messages", condition="com.microsoft:no-messages")
    messages: list[object] = []
    size_bytes = 0
    for entry in found:
        encoded = entry.encoded(peeked=True)
        size_bytes += len(encoded)
        if messages and size_bytes > MAX_PEEK_BYTES:
            break  # the client asks again from the next number
        messages.append({"message": encoded})
    return Response(body={"messages": messages})


def _received(entry: Entry) -> dict[object, object]:
    found: dict[object, object] = {"message": entry.encoded()}
    if entry.lock_token is not None:
        found["lock-token"] = entry.lock_token
    return found


def _receive_deferred(queue: Queue, body: dict[object, object]) -> Response:
    numbers = _numbers(body, "sequence-numbers")
    remove = _number(body, "receiver-settle-mode") == 0
    entries = queue.receive_deferred(numbers, remove=remove)
    return Response(body={"messages": [_received(entry) for entry in entries]})


def _update_disposition(queue: Queue, body: dict[object, object]) -> Response:
    status = body.get("disposition-status")
    settle: Callable[[uuid.UUID], None]
    if status == "completed":
        settle = queue.complete
    elif status == "abandoned":
        settle = queue.abandon
    elif status == "defered":  # spelt so on the wire
        settle = queue.defer
    elif status == "suspended":
        added = {
            name: str(body[key])
            for name, key in (
                ("DeadLetterReason", "deadletter-reason"),
                ("DeadLetterErrorDescription", "deadletter-description"),
            )
            if body.get(key) is not None
        }

        def settle(token: uuid.UUID) -> None:
            queue.reject(token, added)
    else:
        raise BadRequest("disposition-status must be completed, abandoned, defered or suspended")
    for token in _tokens(body):
        settle(token)
    return Response()


_OPERATIONS: Final[dict[str, Callable[[Queue, dict[object, object]], Response]]] = {
    "schedule-message": _schedule,
    "cancel-scheduled-message": _cancel,
    "renew-lock": _renew,
    "peek-message": _peek,
    "receive-by-sequence-number": _receive_deferred,
    "update-disposition": _update_disposition,
}
