import pytest

from emulators.service_bus.codec import (
    CodecError,
    Described,
    Float,
    Long,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    decode_at,
    encode,
)
from emulators.service_bus.message import (
    APPLICATION_PROPERTIES,
    BATCH_FORMAT,
    DATA,
    FOOTER,
    HEADER,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
    DeliveryFacts,
    encode_delivery,
    parse,
    parse_delivery,
    sections,
    with_application_properties,
)


def section(kind: int, value: object) -> bytes:
    return encode(Described(ULong(kind), value))


HEAD = section(HEADER, [True, UByte(4), UInt(5000), None, UInt(9)])
NOTES = section(
    MESSAGE_ANNOTATIONS,
    {
        Symbol("x-opt-partition-key"): "p",
        Symbol("x-opt-sequence-number"): Long(99),
        Symbol("x-opt-scheduled-enqueue-time"): Timestamp(1234),
    },
)
PROPS = section(PROPERTIES, ["id-1", None, None, "subject"])
APP = section(APPLICATION_PROPERTIES, {"n": Float(1.5), "DeadLetterReason": "old"})
BODY = section(DATA, b"\x00\x01")
TAIL = section(FOOTER, {})


def read(data: bytes) -> dict[int, object]:
    return {part.kind: decode_at(data, part.value_at)[0] for part in sections(data)}


def test_the_senders_sections_stay_byte_for_byte() -> None:
    message = parse(HEAD + NOTES + PROPS + APP + BODY + TAIL)
    assert message.bare == PROPS + APP + BODY + TAIL
    assert (message.message_id, message.ttl_ms, message.scheduled_ms) == ("id-1", 5000, 1234)
    assert (message.durable, message.priority) == (True, 4)


def test_a_delivery_carries_the_brokers_facts_and_not_the_senders_claims() -> None:
    facts = DeliveryFacts(sequence_number=7, enqueued_ms=1000, delivery_count=2, state=0)
    found = read(encode_delivery(parse(HEAD + NOTES + PROPS + BODY), facts))
    assert found[HEADER] == [True, UByte(4), UInt(5000), None, UInt(2)]
    assert found[MESSAGE_ANNOTATIONS] == {
        "x-opt-partition-key": "p",
        "x-opt-scheduled-enqueue-time": 1234,
        "x-opt-enqueued-time": 1000,
        "x-opt-sequence-number": 7,
        "x-opt-message-state": 0,
    }


def test_dead_letter_reasons_replace_old_ones_and_touch_nothing_else() -> None:
    message = parse(PROPS + APP + BODY + TAIL)
    found = with_application_properties(message, {"DeadLetterReason": "new"})
    assert found.bare.startswith(PROPS)
    assert found.bare.endswith(BODY + TAIL)
    assert read(found.bare)[APPLICATION_PROPERTIES] == {"n": 1.5, "DeadLetterReason": "new"}


def test_dead_letter_reasons_are_added_where_there_were_no_properties() -> None:
    found = with_application_properties(parse(PROPS + BODY), {"DeadLetterReason": "new"})
    assert [part.kind for part in sections(found.bare)] == [
        PROPERTIES,
        APPLICATION_PROPERTIES,
        DATA,
    ]


@pytest.mark.parametrize("head", [b"", section(PROPERTIES, []), section(PROPERTIES, [None, b"u"])])
def test_a_message_without_an_id_gets_one(head: bytes) -> None:
    first, second = parse(head + BODY), parse(head + BODY)
    assert first.message_id != second.message_id
    properties = read(first.bare)[PROPERTIES]
    assert isinstance(properties, list)
    assert properties[0] == first.message_id
    assert first.bare.endswith(BODY)


def test_a_batch_is_its_messages_and_its_envelope_is_ignored() -> None:
    inner = [section(PROPERTIES, [name]) + BODY for name in ("a", "b")]
    batch = PROPS + b"".join(section(DATA, raw) for raw in inner)
    assert [m.message_id for m in parse_delivery(batch, BATCH_FORMAT)] == ["a", "b"]
    assert [m.message_id for m in parse_delivery(PROPS + BODY, 0)] == ["id-1"]


@pytest.mark.parametrize(
    ("payload", "message_format"),
    [
        (PROPS + BODY, 5),
        (PROPS, BATCH_FORMAT),
        (section(DATA, b"garbage"), BATCH_FORMAT),
        (section(DATA, "text"), BATCH_FORMAT),
        (BODY + PROPS, 0),
        (b"\x01\x02", 0),
        (section(PROPERTIES, "text"), 0),
        (section(APPLICATION_PROPERTIES, []), 0),
        (section(MESSAGE_ANNOTATIONS, []), 0),
        (section(0x99, []), 0),
    ],
)
def test_what_is_no_message_is_refused(payload: bytes, message_format: int) -> None:
    with pytest.raises(CodecError):
        parse_delivery(payload, message_format)
