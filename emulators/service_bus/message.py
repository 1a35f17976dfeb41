"""Messages as a broker sees them: which sections it reads, which it rewrites, which it leaves.

From the properties section on, a message is the sender's own bytes and stays so. Header, delivery
annotations and message annotations are the broker's to write anew for every delivery. The two
exceptions: a dead-lettered message gains application properties, and a message without an id
gets one.

Source: OASIS AMQP 1.0, part 3.2; the `x-opt-` annotations as the Azure SDKs read them.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from emulators.service_bus.codec import (
    CodecError,
    Described,
    Int,
    Long,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    decode_at,
    encode,
    encode_raw_map,
    raw_map_items,
    skip,
)

BATCH_FORMAT: Final = 0x80013700
"""Message format of a batch: each data section is a whole encoded message."""

HEADER: Final = 0x70
DELIVERY_ANNOTATIONS: Final = 0x71
MESSAGE_ANNOTATIONS: Final = 0x72
PROPERTIES: Final = 0x73
APPLICATION_PROPERTIES: Final = 0x74
DATA: Final = 0x75
VALUE: Final = 0x77
FOOTER: Final = 0x78

SCHEDULED_TIME: Final = Symbol("x-opt-scheduled-enqueue-time")
_BROKER_ANNOTATIONS: Final = frozenset(
    {
        "x-opt-enqueued-time",
        "x-opt-sequence-number",
        "x-opt-locked-until",
        "x-opt-message-state",
        "x-opt-enqueue-sequence-number",
        "x-opt-lock-token",
    }
)
_SECTION_NAMES: Final[dict[object, int]] = {
    "amqp:header:list": HEADER,
    "amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
    "amqp:message-annotations:map": MESSAGE_ANNOTATIONS,
    "amqp:properties:list": PROPERTIES,
    "amqp:application-properties:map": APPLICATION_PROPERTIES,
    "amqp:data:binary": DATA,
    "amqp:amqp-sequence:list": 0x76,
    "amqp:amqp-value:*": VALUE,
    "amqp:footer:map": FOOTER,
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message at rest; times in milliseconds.

    `bare` is every section from the properties on, `annotations` the sender's encoded pairs.
    """

    bare: bytes
    message_id: str
    annotations: tuple[bytes, ...] = ()
    ttl_ms: int | None = None
    scheduled_ms: int | None = None
    durable: bool | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its kind, and where it, its value and its successor start."""

    kind: int
    start: int
    value_at: int
    end: int


def sections(data: bytes) -> list[Section]:
    """Splits an encoded message; raises CodecError when it is none."""
    found: list[Section] = []
    pos = 0
    while pos < len(data):
        if data[pos] != 0:
            raise CodecError("a message section must be a described value")
        descriptor, value_at = decode_at(data, pos + 1)
        kind = _SECTION_NAMES.get(descriptor)
        if kind is None and isinstance(descriptor, ULong) and HEADER <= descriptor <= FOOTER:
            kind = int(descriptor)
        if kind is None or (found and kind < found[-1].kind):
            raise CodecError("unknown message section, or one out of order")
        end = skip(data, value_at)
        found.append(Section(kind, pos, value_at, end))
        pos = end
    return found


def _as_list(data: bytes, section: Section) -> list[object]:
    value, _ = decode_at(data, section.value_at)
    if not isinstance(value, list):
        raise CodecError("header and properties must be lists")
    return value


def _as_map(data: bytes, section: Section) -> dict[object, object]:
    value, _ = decode_at(data, section.value_at)
    if not isinstance(value, dict):
        raise CodecError("annotations must be maps")
    return value


def parse(data: bytes) -> Message:
    """Reads an encoded message (format 0).

    Raises CodecError when a section that the broker reads is malformed.
    """
    found = sections(data)
    parts = {section.kind: section for section in found}
    header = _as_list(data, parts[HEADER]) if HEADER in parts else []
    header += [None] * (3 - len(header))
    if APPLICATION_PROPERTIES in parts:
        raw_map_items(data, parts[APPLICATION_PROPERTIES].value_at)  # must be a map: checked here
    annotations, scheduled_ms = _annotations(data, parts.get(MESSAGE_ANNOTATIONS))
    bare_at = next((s.start for s in found if s.kind >= PROPERTIES), len(data))
    bare, message_id = _with_message_id(data[bare_at:])
    return Message(
        bare=bare,
        message_id=message_id,
        annotations=annotations,
        durable=header[0] if isinstance(header[0], bool) else None,
        priority=int(header[1]) if isinstance(header[1], UByte) else None,
        ttl_ms=int(header[2]) if isinstance(header[2], UInt) else None,
        scheduled_ms=scheduled_ms,
    )


def _annotations(data: bytes, section: Section | None) -> tuple[tuple[bytes, ...], int | None]:
    """The sender's own annotations as raw pairs, and the time for which it is scheduled."""
    if section is None:
        return (), None
    kept: list[bytes] = []
    scheduled_ms: int | None = None
    for key, raw in raw_map_items(data, section.value_at):
        if key == SCHEDULED_TIME:
            value, _ = decode_at(raw, skip(raw))
            scheduled_ms = int(value) if isinstance(value, Timestamp) else None
        if key not in _BROKER_ANNOTATIONS:
            kept.append(raw)
    return tuple(kept), scheduled_ms


def _with_message_id(bare: bytes) -> tuple[bytes, str]:
    """The bytes and the id; the JS client sets none and cannot settle without one."""
    head = next(iter(sections(bare)), None)
    if head is None or head.kind != PROPERTIES:
        made = str(uuid.uuid4())
        return encode(Described(ULong(PROPERTIES), [made])) + bare, made
    fields = _as_list(bare, head)
    if fields and fields[0] is not None:
        return bare, str(fields[0])
    made = str(uuid.uuid4())
    properties = encode(Described(ULong(PROPERTIES), [made, *fields[1:]]))
    return properties + bare[head.end :], made


def parse_delivery(payload: bytes, message_format: int) -> list[Message]:
    """The messages of one transfer: one, or those of a batch, whose envelope is ignored.

    Raises CodecError for an unknown format, an empty batch or a malformed message.
    """
    if message_format == 0:
        return [parse(payload)]
    if message_format != BATCH_FORMAT:
        raise CodecError(f"message format 0x{message_format:08x} is not known")
    batch = []
    for section in sections(payload):
        if section.kind == DATA:
            inner, _ = decode_at(payload, section.value_at)
            if not isinstance(inner, bytes):
                raise CodecError("a data section must be binary")
            batch.append(parse(inner))
    if not batch:
        raise CodecError("a batch holds no message")
    return batch


def with_application_properties(message: Message, added: Mapping[str, object]) -> Message:
    """The message with these application properties set; everything else stays byte for byte.

    Raises CodecError for a value without an AMQP type.
    """
    if not added:
        return message
    bare = message.bare
    head = rest = 0
    pairs: list[bytes] = []
    for section in sections(bare):
        if section.kind == PROPERTIES:
            head = rest = section.end
        elif section.kind == APPLICATION_PROPERTIES:
            items = raw_map_items(bare, section.value_at)
            pairs = [raw for key, raw in items if key not in added]
            rest = section.end
    pairs += [encode(key) + encode(value) for key, value in added.items()]
    section_bytes = b"\x00" + encode(ULong(APPLICATION_PROPERTIES)) + encode_raw_map(pairs)
    return replace(message, bare=bare[:head] + section_bytes + bare[rest:])


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """What the broker says about a message when it hands it out; times in milliseconds."""

    sequence_number: int
    enqueued_ms: int
    delivery_count: int
    state: int
    lock_token: uuid.UUID | None = None
    locked_until_ms: int | None = None
    enqueue_sequence_number: int | None = None


def encode_delivery(message: Message, facts: DeliveryFacts) -> bytes:
    """The bytes of a delivery: the broker's sections, then the sender's untouched."""
    priority = None if message.priority is None else UByte(message.priority)
    ttl = None if message.ttl_ms is None else UInt(message.ttl_ms)
    header = [message.durable, priority, ttl, None, UInt(facts.delivery_count)]
    annotations: dict[str, object] = {
        "x-opt-enqueued-time": Timestamp(facts.enqueued_ms),
        "x-opt-sequence-number": Long(facts.sequence_number),
        "x-opt-message-state": Int(facts.state),
    }
    if facts.locked_until_ms is not None:
        annotations["x-opt-locked-until"] = Timestamp(facts.locked_until_ms)
    if facts.enqueue_sequence_number is not None:
        annotations["x-opt-enqueue-sequence-number"] = Long(facts.enqueue_sequence_number)
    pairs = [encode(Symbol(key)) + encode(value) for key, value in annotations.items()]
    parts = [encode(Described(ULong(HEADER), header))]
    if facts.lock_token is not None:
        token: dict[object, object] = {Symbol("x-opt-lock-token"): facts.lock_token}
        parts.append(encode(Described(ULong(DELIVERY_ANNOTATIONS), token)))
    parts.append(b"\x00" + encode(ULong(MESSAGE_ANNOTATIONS)))
    parts.append(encode_raw_map([*message.annotations, *pairs]))
    return b"".join(parts) + message.bare


@dataclass(frozen=True, slots=True)
class Request:
    """A request on a $cbs or $management link."""

    message_id: object
    reply_to: str | None
    properties: dict[object, object]
    body: object


def parse_request(payload: bytes) -> Request:
    """Reads a request; raises CodecError when it is malformed."""
    fields: list[object] = []
    properties: dict[object, object] = {}
    body: object = None
    for section in sections(payload):
        if section.kind == PROPERTIES:
            fields = _as_list(payload, section)
        elif section.kind == APPLICATION_PROPERTIES:
            properties = _as_map(payload, section)
        elif section.kind in (DATA, VALUE):
            body, _ = decode_at(payload, section.value_at)
    fields += [None] * (5 - len(fields))
    reply_to = fields[4] if isinstance(fields[4], str) else None
    return Request(fields[0], reply_to, properties, body)


def encode_response(request: Request, properties: dict[object, object], body: object) -> bytes:
    """A response: its correlation-id is the request's message-id, type and all."""
    fields: Iterable[object] = [None, None, None, None, None, request.message_id]
    return b"".join(
        (
            encode(Described(ULong(PROPERTIES), list(fields))),
            encode(Described(ULong(APPLICATION_PROPERTIES), properties)),
            encode(Described(ULong(VALUE), body)),
        )
    )
