import math
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulators.service_bus.codec import (
    Array,
    Byte,
    Char,
    CodecError,
    Described,
    Float,
    Int,
    Long,
    Opaque,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode_at,
    encode,
    encode_raw_map,
    raw_map_items,
    skip,
)
from emulators.service_bus.performatives import Attach, Composite, Open, interpret

ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")

# From the tables of AMQP 1.0, part 1: each constructor by its bytes.
TABLE = [
    ("40", None),
    ("41", True),
    ("42", False),
    ("5601", True),
    ("5600", False),
    ("50ff", UByte(255)),
    ("600102", UShort(258)),
    ("7000010000", UInt(65536)),
    ("52ff", UInt(255)),
    ("43", UInt(0)),
    ("800000000100000000", ULong(1 << 32)),
    ("5310", ULong(16)),
    ("44", ULong(0)),
    ("51ff", Byte(-1)),
    ("61fffe", Short(-2)),
    ("71fffffffd", Int(-3)),
    ("54fd", Int(-3)),
    ("81fffffffffffffffc", Long(-4)),
    ("55fc", Long(-4)),
    ("723fc00000", Float(1.5)),
    ("823ff8000000000000", 1.5),
    ("7400000001", Opaque(0x74, b"\0\0\0\1")),
    ("730001f600", Char("😀")),
    ("83000000000000002a", Timestamp(42)),
    ("98" + ID.hex, ID),
    ("a003010203", b"\1\2\3"),
    ("b000000001ff", b"\xff"),
    ("a1026869", "hi"),
    ("b1000000026869", "hi"),
    ("a3026869", Symbol("hi")),
    ("b3000000026869", Symbol("hi")),
    ("45", []),
    ("c0 04 02 5201 41", [UInt(1), True]),
    ("d0 00000007 00000002 5201 41", [UInt(1), True]),
    ("c1 06 02 a1016b 5207", {"k": UInt(7)}),
    ("d1 00000009 00000002 a1016b 5207", {"k": UInt(7)}),
    ("e0 06 02 a3 0161 0162", Array(Symbol, (Symbol("a"), Symbol("b")))),
    ("f0 0000000d 00000002 70 00000001 00000002", Array(UInt, (UInt(1), UInt(2)))),
    ("00 5310 45", Described(ULong(16), [])),
]


@pytest.mark.parametrize(("raw", "value"), TABLE)
def test_every_constructor_decodes_to_a_value_of_its_own_type(raw: str, value: object) -> None:
    data = bytes.fromhex(raw)
    found, end = decode_at(data)
    assert found == value
    assert type(found) is type(value)
    assert end == len(data) == skip(data)


def integers(kind: type, bits: int, *, signed: bool) -> st.SearchStrategy[object]:
    low = -(1 << (bits - 1)) if signed else 0
    return st.integers(low, (1 << (bits - int(signed))) - 1).map(kind)


simple = st.one_of(
    st.none(),
    st.booleans(),
    integers(UByte, 8, signed=False),
    integers(UShort, 16, signed=False),
    integers(UInt, 32, signed=False),
    integers(ULong, 64, signed=False),
    integers(Byte, 8, signed=True),
    integers(Short, 16, signed=True),
    integers(Int, 32, signed=True),
    integers(Long, 64, signed=True),
    integers(Timestamp, 64, signed=True),
    st.floats(width=32, allow_nan=False).map(Float),
    st.floats(allow_nan=False),
    st.characters(exclude_categories=["Cs"]).map(Char),
    st.uuids(),
    st.binary(max_size=300),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(st.characters(max_codepoint=127), max_size=20).map(Symbol),
)
arrays = st.one_of(
    st.lists(st.uuids()).map(lambda items: Array(uuid.UUID, tuple(items))),
    st.lists(integers(Long, 64, signed=True)).map(lambda items: Array(Long, tuple(items))),
    st.lists(st.text(st.characters(max_codepoint=127)).map(Symbol)).map(
        lambda items: Array(Symbol, tuple(items))
    ),
)
values = st.recursive(
    st.one_of(simple, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.text(max_size=5).map(str), inner, max_size=5),
        st.builds(Described, integers(ULong, 64, signed=False), inner),
    ),
    max_leaves=20,
)


@given(values)
def test_what_is_encoded_decodes_to_itself(value: object) -> None:
    data = encode(value)
    found, end = decode_at(data)
    assert (found, end) == (value, len(data))
    assert skip(data) == end
    assert encode(found) == data


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_decoded_but_never_breaks_the_decoder(data: bytes) -> None:
    for read in (decode_at, skip, raw_map_items):
        try:
            read(data)
        except CodecError:
            continue


@given(values, st.data())
def test_a_damaged_value_is_refused_or_decoded_but_never_breaks_the_decoder(
    value: object, data: st.DataObject
) -> None:
    raw = bytearray(encode(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    try:
        interpret(decode_at(bytes(raw))[0])
    except CodecError:
        return


@given(values)
def test_a_value_cut_short_is_refused(value: object) -> None:
    raw = encode(value)
    with pytest.raises(CodecError):
        decode_at(raw[:-1])


def test_nesting_has_a_limit() -> None:
    for deep in (b"\xc0\x02\x01" * 200, b"\x00" * 5000):
        with pytest.raises(CodecError):
            decode_at(deep)
        with pytest.raises(CodecError):
            skip(b"\x00" * 5000)


def test_an_array_of_nothing_cannot_claim_billions_of_elements() -> None:
    with pytest.raises(CodecError, match="elements"):
        decode_at(bytes.fromhex("f000000005ffffffff40"))


@pytest.mark.parametrize("value", [5, object(), (1,), UByte(256), Symbol("ä"), {1: None}])
def test_a_value_without_an_amqp_type_is_not_guessed_at(value: object) -> None:
    with pytest.raises(CodecError):
        encode(value)


def test_nan_survives() -> None:
    found, _ = decode_at(encode(math.nan))
    assert isinstance(found, float)
    assert math.isnan(found)


@given(st.dictionaries(st.text(max_size=5), values, max_size=5))
def test_a_map_can_be_taken_apart_and_put_together_unchanged(value: dict[object, object]) -> None:
    raw = encode(value)
    items = raw_map_items(raw)
    assert [key for key, _ in items] == list(value)
    assert encode_raw_map([pair for _, pair in items]) == raw


def test_a_performative_sends_every_field_and_reads_fewer() -> None:
    raw = Attach("link", UInt(0), role=True).encode()
    described, _ = decode_at(raw)
    assert isinstance(described, Described)
    assert isinstance(described.value, list)
    assert len(described.value) == len(Attach.WIRE)
    assert interpret(described) == Attach("link", UInt(0), role=True)
    short = interpret(Described(Symbol("amqp:open:list"), ["me"]))
    assert short == Open("me")


@pytest.mark.parametrize(
    "fields",
    [[], [UInt(1)], ["name", UInt(0), "not a role"], ["x"] * 20],
)
def test_a_performative_with_wrong_fields_is_refused(fields: list[object]) -> None:
    with pytest.raises(CodecError):
        interpret(Described(ULong(Attach.CODE), fields))


def test_an_unknown_described_value_is_left_alone() -> None:
    value = Described(Symbol("vendor:thing"), ["x"])
    assert interpret(value) is value
    assert not isinstance(value, Composite)
