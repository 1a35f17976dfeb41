"""The composite types of AMQP 1.0: frames' performatives, termini, outcomes and SASL frames.

Each class lists its fields in wire order; `WIRE` gives the type that each may have. All fields
are always sent, null where unset: pyamqp before 7.15 reads them by position.

Source: OASIS AMQP 1.0, parts 2 (transport), 3 (messaging), 5 (security).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from emulators.service_bus.codec import (
    CodecError,
    Described,
    Symbol,
    UByte,
    UInt,
    ULong,
    UShort,
    encode,
)

Fields = dict[object, object]


class Composite:
    """A described list with a known descriptor."""

    CODE: ClassVar[int]
    NAME: ClassVar[str]
    WIRE: ClassVar[tuple[Any, ...]]

    def encode(self) -> bytes:
        """The bytes on the wire, with every field present."""
        return encode(Described(ULong(self.CODE), [_plain(v) for v in _values(self)]))


def _values(composite: Composite) -> list[object]:
    return [getattr(composite, name) for name in composite.__dataclass_fields__]  # type: ignore[attr-defined]


def _plain(value: object) -> object:
    if isinstance(value, Composite):
        return Described(ULong(value.CODE), [_plain(item) for item in _values(value)])
    return value


@dataclass(slots=True)
class AmqpError(Composite):
    """error: condition, description, info."""

    CODE = 0x1D
    NAME = "amqp:error:list"
    WIRE = (Symbol, str, dict)

    condition: Symbol
    description: str | None = None
    info: Fields | None = None


@dataclass(slots=True)
class Source(Composite):
    """source of a link; `filter` is where a session would be asked for."""

    CODE = 0x28
    NAME = "amqp:source:list"
    WIRE = (str, UInt, Symbol, UInt, bool, dict, Symbol, dict, object, object, object)

    address: str | None = None
    durable: UInt | None = None
    expiry_policy: Symbol | None = None
    timeout: UInt | None = None
    dynamic: bool | None = None
    dynamic_node_properties: Fields | None = None
    distribution_mode: Symbol | None = None
    filter: Fields | None = None
    default_outcome: object = None
    outcomes: object = None
    capabilities: object = None


@dataclass(slots=True)
class Target(Composite):
    """target of a link."""

    CODE = 0x29
    NAME = "amqp:target:list"
    WIRE = (str, UInt, Symbol, UInt, bool, dict, object)

    address: str | None = None
    durable: UInt | None = None
    expiry_policy: Symbol | None = None
    timeout: UInt | None = None
    dynamic: bool | None = None
    dynamic_node_properties: Fields | None = None
    capabilities: object = None


@dataclass(slots=True)
class Accepted(Composite):
    """Outcome: done with."""

    CODE = 0x24
    NAME = "amqp:accepted:list"
    WIRE = ()


@dataclass(slots=True)
class Rejected(Composite):
    """Outcome: invalid; from a Service Bus receiver it means dead-letter."""

    CODE = 0x25
    NAME = "amqp:rejected:list"
    WIRE = (AmqpError,)

    error: AmqpError | None = None


@dataclass(slots=True)
class Released(Composite):
    """Outcome: given back, as if never delivered."""

    CODE = 0x26
    NAME = "amqp:released:list"
    WIRE = ()


@dataclass(slots=True)
class Modified(Composite):
    """Outcome: abandon, or with `undeliverable_here` defer."""

    CODE = 0x27
    NAME = "amqp:modified:list"
    WIRE = (bool, bool, dict)

    delivery_failed: bool | None = None
    undeliverable_here: bool | None = None
    message_annotations: Fields | None = None


@dataclass(slots=True)
class Open(Composite):
    """open a connection; times in milliseconds, sizes in bytes."""

    CODE = 0x10
    NAME = "amqp:open:list"
    WIRE = (str, str, UInt, UShort, UInt, object, object, object, object, dict)

    container_id: str
    hostname: str | None = None
    max_frame_size: UInt | None = None
    channel_max: UShort | None = None
    idle_time_out: UInt | None = None
    outgoing_locales: object = None
    incoming_locales: object = None
    offered_capabilities: object = None
    desired_capabilities: object = None
    properties: Fields | None = None


@dataclass(slots=True)
class Begin(Composite):
    """begin a session; windows in transfer frames."""

    CODE = 0x11
    NAME = "amqp:begin:list"
    WIRE = (UShort, UInt, UInt, UInt, UInt, object, object, dict)

    remote_channel: UShort | None = None
    next_outgoing_id: UInt = field(default_factory=UInt)
    incoming_window: UInt = field(default_factory=UInt)
    outgoing_window: UInt = field(default_factory=UInt)
    handle_max: UInt | None = None
    offered_capabilities: object = None
    desired_capabilities: object = None
    properties: Fields | None = None


@dataclass(slots=True)
class Attach(Composite):
    """attach a link; `role` true is a receiver; max-message-size in bytes."""

    CODE = 0x12
    NAME = "amqp:attach:list"
    WIRE = (
        str, UInt, bool, UByte, UByte, object, object, dict, bool, UInt, ULong,
        object, object, dict,
    )  # fmt: skip

    name: str
    handle: UInt
    role: bool
    snd_settle_mode: UByte | None = None
    rcv_settle_mode: UByte | None = None
    source: object = None
    target: object = None
    unsettled: Fields | None = None
    incomplete_unsettled: bool | None = None
    initial_delivery_count: UInt | None = None
    max_message_size: ULong | None = None
    offered_capabilities: object = None
    desired_capabilities: object = None
    properties: Fields | None = None


@dataclass(slots=True)
class Flow(Composite):
    """flow: session windows, and a link's credit when `handle` is set."""

    CODE = 0x13
    NAME = "amqp:flow:list"
    WIRE = (UInt, UInt, UInt, UInt, UInt, UInt, UInt, UInt, bool, bool, dict)

    next_incoming_id: UInt | None = None
    incoming_window: UInt = field(default_factory=UInt)
    next_outgoing_id: UInt = field(default_factory=UInt)
    outgoing_window: UInt = field(default_factory=UInt)
    handle: UInt | None = None
    delivery_count: UInt | None = None
    link_credit: UInt | None = None
    available: UInt | None = None
    drain: bool | None = None
    echo: bool | None = None
    properties: Fields | None = None


@dataclass(slots=True)
class Transfer(Composite):
    """transfer: one frame of a delivery; the payload follows it in the frame."""

    CODE = 0x14
    NAME = "amqp:transfer:list"
    WIRE = (UInt, UInt, bytes, UInt, bool, bool, UByte, object, bool, bool, bool)

    handle: UInt
    delivery_id: UInt | None = None
    delivery_tag: bytes | None = None
    message_format: UInt | None = None
    settled: bool | None = None
    more: bool | None = None
    rcv_settle_mode: UByte | None = None
    state: object = None
    resume: bool | None = None
    aborted: bool | None = None
    batchable: bool | None = None


@dataclass(slots=True)
class Disposition(Composite):
    """disposition of deliveries `first` to `last`; `role` true comes from a receiver."""

    CODE = 0x15
    NAME = "amqp:disposition:list"
    WIRE = (bool, UInt, UInt, bool, object, bool)

    role: bool
    first: UInt
    last: UInt | None = None
    settled: bool | None = None
    state: object = None
    batchable: bool | None = None


@dataclass(slots=True)
class Detach(Composite):
    """detach a link."""

    CODE = 0x16
    NAME = "amqp:detach:list"
    WIRE = (UInt, bool, AmqpError)

    handle: UInt
    closed: bool | None = None
    error: AmqpError | None = None


@dataclass(slots=True)
class End(Composite):
    """end a session."""

    CODE = 0x17
    NAME = "amqp:end:list"
    WIRE = (AmqpError,)

    error: AmqpError | None = None


@dataclass(slots=True)
class Close(Composite):
    """close a connection."""

    CODE = 0x18
    NAME = "amqp:close:list"
    WIRE = (AmqpError,)

    error: AmqpError | None = None


@dataclass(slots=True)
class SaslMechanisms(Composite):
    """The mechanisms that a server offers: an array of symbols."""

    CODE = 0x40
    NAME = "amqp:sasl-mechanisms:list"
    WIRE = (object,)

    mechanisms: object


@dataclass(slots=True)
class SaslInit(Composite):
    """The mechanism that a client chose."""

    CODE = 0x41
    NAME = "amqp:sasl-init:list"
    WIRE = (Symbol, bytes, str)

    mechanism: Symbol
    initial_response: bytes | None = None
    hostname: str | None = None


@dataclass(slots=True)
class SaslOutcome(Composite):
    """0 is good."""

    CODE = 0x44
    NAME = "amqp:sasl-outcome:list"
    WIRE = (UByte, bytes)

    code: UByte
    additional_data: bytes | None = None


_CLASSES: Final[tuple[type[Composite], ...]] = (
    AmqpError, Source, Target, Accepted, Rejected, Released, Modified, Open, Begin, Attach, Flow,
    Transfer, Disposition, Detach, End, Close, SaslMechanisms, SaslInit, SaslOutcome,
)  # fmt: skip
_BY_DESCRIPTOR: Final[dict[object, type[Composite]]] = {
    **{cls.CODE: cls for cls in _CLASSES},
    **{cls.NAME: cls for cls in _CLASSES},
}


def interpret(value: object) -> object:
    """Turns a decoded `Described` of a known descriptor into its class, nested ones included.

    Values of other descriptors stay as they are. Raises CodecError for a field of a wrong type
    or a missing mandatory one.
    """
    if not isinstance(value, Described):
        return value
    cls = _BY_DESCRIPTOR.get(value.descriptor)
    if cls is None:
        return value
    if not isinstance(value.value, list) or len(value.value) > len(cls.WIRE):
        raise CodecError(f"{cls.NAME} takes a list of at most {len(cls.WIRE)} fields")
    names = list(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    fields: dict[str, object] = {}
    for name, kind, raw in zip(names, cls.WIRE, value.value, strict=False):
        item = interpret(raw)
        if item is None:
            continue
        if not isinstance(item, kind):
            raise CodecError(f"{cls.NAME} field {name} is a {type(item).__name__}")
        fields[name] = item
    try:
        return cls(**fields)
    except TypeError as error:  # a mandatory field is missing
        raise CodecError(f"{cls.NAME} lacks a mandatory field") from error
