"""The AMQP 1.0 type system: bytes to Python values and back, losing no type.

Python has one integer and one string where AMQP has eight and two, so every AMQP type that a
plain Python type cannot tell apart has a subclass here (`UInt`, `Long`, `Symbol`, ...). Decoding
gives these, and encoding asks for them: a plain `int` is refused, because guessing its width is
how messages change on their way through a broker.

Source of the formats: OASIS AMQP 1.0, part 1 (types).
"""

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 32
MAX_EMPTY_ELEMENTS: Final = 65536


class CodecError(ValueError):
    """The bytes are not AMQP 1.0, or the value has no AMQP type."""


class UByte(int):
    """ubyte, 8 bits."""


class UShort(int):
    """ushort, 16 bits."""


class UInt(int):
    """uint, 32 bits."""


class ULong(int):
    """ulong, 64 bits."""


class Byte(int):
    """byte, 8 bits signed."""


class Short(int):
    """short, 16 bits signed."""


class Int(int):
    """int, 32 bits signed."""


class Long(int):
    """long, 64 bits signed."""


class Timestamp(int):
    """timestamp, milliseconds since 1970-01-01 UTC, 64 bits signed."""


class Float(float):
    """float, 32 bits; a plain Python float is an AMQP double."""


class Char(str):
    """char, one code point as four bytes."""


class Symbol(str):
    """symbol, ASCII."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """A fixed-width value kept as it came (the decimals): its constructor and its bytes."""

    code: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Described:
    """A described value whose descriptor nobody has interpreted yet."""

    descriptor: object
    value: object


@dataclass(frozen=True, slots=True)
class Array:
    """An AMQP array: items of one type; `kind` is that type, which matters when it is empty."""

    kind: type
    items: tuple[object, ...]


Reader = Callable[[bytes, int, int], tuple[object, int]]


def _need(data: bytes, end: int) -> None:
    if end > len(data):
        raise CodecError(f"value ends at byte {end}, only {len(data)} are there")


def _fixed(fmt: str, make: Callable[..., object]) -> Reader:
    packer = struct.Struct(fmt)

    def read(data: bytes, pos: int, depth: int) -> tuple[object, int]:
        end = pos + packer.size
        _need(data, end)
        return make(packer.unpack_from(data, pos)[0]), end

    return read


def _constant(value: object) -> Reader:
    return lambda data, pos, depth: (value, pos)


def _variable(width: int, make: Callable[[bytes], object]) -> Reader:
    def read(data: bytes, pos: int, depth: int) -> tuple[object, int]:
        start = pos + width
        _need(data, start)
        end = start + int.from_bytes(data[pos:start], "big")
        _need(data, end)
        return make(data[start:end]), end

    return read


def _text(raw: bytes) -> str:
    return str(raw, "utf-8")


def _symbol(raw: bytes) -> Symbol:
    return Symbol(str(raw, "ascii"))


def _opaque(code: int, size: int) -> Reader:
    def read(data: bytes, pos: int, depth: int) -> tuple[object, int]:
        _need(data, pos + size)
        return Opaque(code, data[pos : pos + size]), pos + size

    return read


def _compound_bounds(data: bytes, pos: int, width: int) -> tuple[int, int, int]:
    """Reads size and count of a list, map or array: (count, first byte, end)."""
    body = pos + width
    _need(data, body + width)
    end = body + int.from_bytes(data[pos:body], "big")
    _need(data, end)
    if end < body + width:
        raise CodecError("a compound value is shorter than its own count")
    return int.from_bytes(data[body : body + width], "big"), body + width, end


def _list(width: int) -> Reader:
    def read(data: bytes, pos: int, depth: int) -> tuple[object, int]:
        count, pos, end = _compound_bounds(data, pos, width)
        if count > end - pos:
            raise CodecError(f"a list of {count} elements does not fit {end - pos} bytes")
        items = []
        for _ in range(count):
            item, pos = decode_at(data, pos, depth + 1)
            items.append(item)
        if pos != end:
            raise CodecError("a list's elements do not fill its size")
        return items, end

    return read


def _map(width: int) -> Reader:
    def read(data: bytes, pos: int, depth: int) -> tuple[object, int]:
        count, pos, end = _compound_bounds(data, pos, width)
        if count % 2 or count > end - pos:
            raise CodecError(f"a map of {count} elements does not fit {end - pos} bytes")
        items: dict[object, object] = {}
        for _ in range(count // 2):
            key, pos = decode_at(data, pos, depth + 1)
            if isinstance(key, list | dict | Described | Array):
                raise CodecError("a map key must be a simple value")
            items[key], pos = decode_at(data, pos, depth + 1)
        if pos != end:
            raise CodecError("a map's elements do not fill its size")
        return items, end

    return read


def _array(width: int) -> Reader:
    def read(data: bytes, pos: int, depth: int) -> tuple[object, int]:
        count, pos, end = _compound_bounds(data, pos, width)
        if count > max(end - pos, MAX_EMPTY_ELEMENTS):
            raise CodecError(f"an array of {count} elements does not fit {end - pos} bytes")
        _need(data, pos + 1)
        described = data[pos] == 0
        descriptor: object = None
        if described:
            descriptor, pos = decode_at(data, pos + 1, depth + 1)
            _need(data, pos + 1)
        reader = _READERS.get(data[pos])
        if reader is None:
            raise CodecError(f"unknown array element constructor 0x{data[pos]:02x}")
        kind, pos = _KINDS.get(data[pos], object), pos + 1
        items = []
        for _ in range(count):
            item, pos = reader(data, pos, depth + 1)
            items.append(Described(descriptor, item) if described else item)
        if pos != end:
            raise CodecError("an array's elements do not fill its size")
        return Array(Described if described else kind, tuple(items)), end

    return read


def _described(data: bytes, pos: int, depth: int) -> tuple[object, int]:
    descriptor, pos = decode_at(data, pos, depth + 1)
    if isinstance(descriptor, list | dict | Described | Array):
        raise CodecError("a descriptor must be a simple value")
    value, pos = decode_at(data, pos, depth + 1)
    return Described(descriptor, value), pos


def _code_point(number: int) -> Char:
    return Char(chr(number))


_READERS: Final[dict[int, Reader]] = {
    0x00: _described,
    0x40: _constant(None),
    0x41: _constant(True),
    0x42: _constant(False),
    0x43: _constant(UInt(0)),
    0x44: _constant(ULong(0)),
    0x45: lambda data, pos, depth: ([], pos),
    0x50: _fixed(">B", UByte),
    0x51: _fixed(">b", Byte),
    0x52: _fixed(">B", UInt),
    0x53: _fixed(">B", ULong),
    0x54: _fixed(">b", Int),
    0x55: _fixed(">b", Long),
    0x56: _fixed(">B", bool),
    0x60: _fixed(">H", UShort),
    0x61: _fixed(">h", Short),
    0x70: _fixed(">I", UInt),
    0x71: _fixed(">i", Int),
    0x72: _fixed(">f", Float),
    0x73: _fixed(">I", _code_point),
    0x74: _opaque(0x74, 4),
    0x80: _fixed(">Q", ULong),
    0x81: _fixed(">q", Long),
    0x82: _fixed(">d", float),
    0x83: _fixed(">q", Timestamp),
    0x84: _opaque(0x84, 8),
    0x94: _opaque(0x94, 16),
    0x98: _fixed(">16s", lambda raw: uuid.UUID(bytes=raw)),
    0xA0: _variable(1, bytes),
    0xA1: _variable(1, _text),
    0xA3: _variable(1, _symbol),
    0xB0: _variable(4, bytes),
    0xB1: _variable(4, _text),
    0xB3: _variable(4, _symbol),
    0xC0: _list(1),
    0xC1: _map(1),
    0xD0: _list(4),
    0xD1: _map(4),
    0xE0: _array(1),
    0xF0: _array(4),
}


def decode_at(data: bytes, pos: int = 0, depth: int = 0) -> tuple[object, int]:
    """Decodes the value at `pos`; returns it and the position after it.

    Raises CodecError for anything malformed, too deep, or an unknown constructor.
    """
    if depth > MAX_DEPTH:
        raise CodecError(f"values are nested deeper than {MAX_DEPTH}")
    _need(data, pos + 1)
    reader = _READERS.get(data[pos])
    if reader is None:
        raise CodecError(f"unknown constructor 0x{data[pos]:02x}")
    try:
        return reader(data, pos + 1, depth)
    except (UnicodeDecodeError, OverflowError) as error:
        raise CodecError(str(error)) from error
    except ValueError as error:  # chr() of a number that is no code point
        raise error if isinstance(error, CodecError) else CodecError(str(error)) from error


def skip(data: bytes, pos: int = 0, depth: int = 0) -> int:
    """Returns the position after the value at `pos` without building it."""
    if depth > MAX_DEPTH:
        raise CodecError(f"values are nested deeper than {MAX_DEPTH}")
    _need(data, pos + 1)
    code = data[pos]
    if code == 0:
        return skip(data, skip(data, pos + 1, depth + 1), depth + 1)
    if code not in _READERS:
        raise CodecError(f"unknown constructor 0x{code:02x}")
    pos += 1
    width = _SKIP_FIXED.get(code >> 4)
    if width is None:
        prefix = 1 if (code >> 4) in (0xA, 0xC, 0xE) else 4
        _need(data, pos + prefix)
        width = prefix + int.from_bytes(data[pos : pos + prefix], "big")
    _need(data, pos + width)
    return pos + width


_SKIP_FIXED: Final = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}


def raw_map_items(data: bytes, pos: int = 0) -> list[tuple[object, bytes]]:
    """Splits the map at `pos` into (key, bytes of key and value), for editing without re-encoding.

    Raises CodecError when there is no map at `pos`.
    """
    _need(data, pos + 1)
    if data[pos] not in (0xC1, 0xD1):
        raise CodecError(f"expected a map, got constructor 0x{data[pos]:02x}")
    count, pos, end = _compound_bounds(data, pos + 1, 1 if data[pos] == 0xC1 else 4)
    items: list[tuple[object, bytes]] = []
    while pos < end and len(items) < count // 2:
        key, value_at = decode_at(data, pos)
        after = skip(data, value_at)
        items.append((key, data[pos:after]))
        pos = after
    if pos != end or count != 2 * len(items):
        raise CodecError("a map's elements do not fill its size")
    return items


def encode_raw_map(pairs: list[bytes]) -> bytes:
    """Builds a map out of pairs that are encoded already."""
    return _compound(0xC1, 2 * len(pairs), b"".join(pairs))


def _compound(code8: int, count: int, body: bytes) -> bytes:
    if len(body) < 255 and count < 256:
        return struct.pack(">BBB", code8, len(body) + 1, count) + body
    return struct.pack(">BII", code8 + 0x10, len(body) + 4, count) + body


def _sized(code8: int, raw: bytes) -> bytes:
    if len(raw) < 256:
        return bytes((code8, len(raw))) + raw
    return struct.pack(">BI", code8 + 0x10, len(raw)) + raw


def _encode_uint(value: UInt) -> bytes:
    if value == 0:
        return b"\x43"
    return bytes((0x52, value)) if 0 < value < 256 else struct.pack(">BI", 0x70, value)


def _encode_ulong(value: ULong) -> bytes:
    if value == 0:
        return b"\x44"
    return bytes((0x53, value)) if 0 < value < 256 else struct.pack(">BQ", 0x80, value)


def _encode_list(value: list[object]) -> bytes:
    return _compound(0xC0, len(value), b"".join(map(encode, value))) if value else b"\x45"


def _encode_map(value: dict[object, object]) -> bytes:
    pairs = b"".join(encode(key) + encode(item) for key, item in value.items())
    return _compound(0xC1, 2 * len(value), pairs)


def _encode_array(value: Array) -> bytes:
    code = _ARRAY_CODES.get(value.kind)
    if code is None:
        raise CodecError(f"arrays of {value.kind.__name__} are not supported")
    body = bytes((code,)) + b"".join(_array_element(code, item) for item in value.items)
    return struct.pack(">BII", 0xF0, len(body) + 4, len(value.items)) + body


def _array_element(code: int, item: object) -> bytes:
    """An element without its constructor, in the widest form of its type."""
    if isinstance(item, uuid.UUID):
        return item.bytes
    if isinstance(item, str | bytes):
        raw = item.encode() if isinstance(item, str) else item
        return struct.pack(">I", len(raw)) + raw
    return struct.pack(_ARRAY_FORMATS[code], item)


_KINDS: Final[dict[int, type]] = {
    0x41: bool, 0x42: bool, 0x43: UInt, 0x44: ULong, 0x50: UByte, 0x51: Byte, 0x52: UInt,
    0x53: ULong, 0x54: Int, 0x55: Long, 0x56: bool, 0x60: UShort, 0x61: Short, 0x70: UInt,
    0x71: Int, 0x72: Float, 0x80: ULong, 0x81: Long, 0x82: float, 0x83: Timestamp,
    0x98: uuid.UUID, 0xA0: bytes, 0xA1: str, 0xA3: Symbol, 0xB0: bytes, 0xB1: str, 0xB3: Symbol,
}  # fmt: skip
_ARRAY_CODES: Final[dict[type, int]] = {
    bool: 0x56, UByte: 0x50, Byte: 0x51, UShort: 0x60, Short: 0x61, UInt: 0x70, Int: 0x71,
    Float: 0x72, ULong: 0x80, Long: 0x81, float: 0x82, Timestamp: 0x83, uuid.UUID: 0x98,
    bytes: 0xB0, str: 0xB1, Symbol: 0xB3,
}  # fmt: skip
_ARRAY_FORMATS: Final = {
    0x50: ">B", 0x51: ">b", 0x56: ">B", 0x60: ">H", 0x61: ">h", 0x70: ">I", 0x71: ">i",
    0x72: ">f", 0x80: ">Q", 0x81: ">q", 0x82: ">d", 0x83: ">q",
}  # fmt: skip

_WRITERS: Final[dict[type, Callable[..., bytes]]] = {
    type(None): lambda value: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    UByte: lambda value: struct.pack(">BB", 0x50, value),
    Byte: lambda value: struct.pack(">Bb", 0x51, value),
    UShort: lambda value: struct.pack(">BH", 0x60, value),
    Short: lambda value: struct.pack(">Bh", 0x61, value),
    UInt: _encode_uint,
    ULong: _encode_ulong,
    Int: lambda value: struct.pack(">Bi", 0x71, value),
    Long: lambda value: struct.pack(">Bq", 0x81, value),
    Timestamp: lambda value: struct.pack(">Bq", 0x83, value),
    Float: lambda value: struct.pack(">Bf", 0x72, value),
    float: lambda value: struct.pack(">Bd", 0x82, value),
    Char: lambda value: struct.pack(">BI", 0x73, ord(value)),
    uuid.UUID: lambda value: b"\x98" + value.bytes,
    bytes: lambda value: _sized(0xA0, value),
    str: lambda value: _sized(0xA1, value.encode()),
    Symbol: lambda value: _sized(0xA3, value.encode("ascii")),
    Opaque: lambda value: bytes((value.code,)) + value.data,
    Described: lambda value: b"\x00" + encode(value.descriptor) + encode(value.value),
    list: _encode_list,
    dict: _encode_map,
    Array: _encode_array,
}


def encode(value: object) -> bytes:
    """Encodes a value of exactly one of the types of this module.

    Raises CodecError for a type without an AMQP counterpart (a plain int among them) and for a
    number outside its type's range.
    """
    writer = _WRITERS.get(type(value))
    if writer is None:
        raise CodecError(f"{type(value).__name__} has no AMQP type of its own")
    try:
        return writer(value)
    except (struct.error, UnicodeEncodeError) as error:
        raise CodecError(str(error)) from error
