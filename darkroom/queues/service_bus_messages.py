"""Our messages in Service Bus's terms, both ways, and the retry copies between.

The message id is the job id. Application properties are the message's own (model, tenant, pool,
``traceparent``); the subject is the model, for people who look into the queue. A retry copy (see
`darkroom.queues.service_bus`) has another message id, so two more properties carry what the
original's said.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage

from darkroom.messages import Message
from darkroom.queues.base import DeadLetter

MESSAGE_ID = "darkroom-message-id"
DELIVERIES = "darkroom-deliveries"
NOT_OURS = frozenset(  # what this adapter, the broker or the SDK's tracing adds
    {MESSAGE_ID, DELIVERIES, "DeadLetterReason", "DeadLetterErrorDescription", "Diagnostic-Id"}
)


class Received:
    """What a message from the broker says, in our words."""

    def __init__(self, message: ServiceBusReceivedMessage) -> None:
        named = {_text(k): _text(v) for k, v in (message.application_properties or {}).items()}
        self.properties: Mapping[str, str] = {
            name: value for name, value in named.items() if name not in NOT_OURS
        }
        self.message_id = named.get(MESSAGE_ID) or str(message.message_id)
        self.body = b"".join(message.body)
        self.earlier_deliveries = int(named.get(DELIVERIES, 0)) + (message.delivery_count or 0)
        self.number = message.sequence_number or 0

    def copy(self, deliveries: int, not_before: datetime | None = None) -> ServiceBusMessage:
        """Return a new message of the same content that has been delivered so many times."""
        carried = {MESSAGE_ID: self.message_id, DELIVERIES: str(deliveries)}
        return _outgoing(
            f"{self.message_id}~{self.number}",
            self.body,
            {**self.properties, **carried},
            not_before,
        )


def outgoing(message: Message, not_before: datetime | None) -> tuple[ServiceBusMessage, int]:
    """Return the message as the SDK sends it, and the length of its body in bytes."""
    body = message.encode()
    return _outgoing(message.message_id, body, message.properties, not_before), len(body)


def dead_letter(message: ServiceBusReceivedMessage, max_delivery_count: int) -> DeadLetter:
    """Return a dead-lettered message in our words.

    The broker counts the deliveries that failed by themselves; one that ended by dead-lettering
    was a delivery too, and is added unless the limit was what dead-lettered it.
    """
    received = Received(message)
    return DeadLetter(
        message_id=received.message_id,
        body=received.body,
        properties=received.properties,
        reason=message.dead_letter_reason or "",
        description=message.dead_letter_error_description or "",
        delivery_count=min(received.earlier_deliveries + 1, max_delivery_count),
        enqueued_at=message.enqueued_time_utc or datetime.now(UTC),
    )


def _outgoing(
    message_id: str, body: bytes, properties: Mapping[str, str], not_before: datetime | None
) -> ServiceBusMessage:
    return ServiceBusMessage(
        body,
        message_id=message_id,
        subject=properties.get("model"),
        content_type="application/json",
        application_properties=cast("dict[str | bytes, Any]", dict(properties)),
        scheduled_enqueue_time_utc=not_before,
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
