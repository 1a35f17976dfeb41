"""The AMQP 1.0 engine: one TCP connection, its frames, SASL, and its sessions.

Knows the protocol and no queues: the broker behind it is a `Handler`, asked when a link attaches
and told when the connection is gone. Clients pipeline header, open, begin and attach without
waiting, so nothing here waits either.

Source: OASIS AMQP 1.0, part 2 (transport) and 5.3 (SASL); the values of `open` are those that
Azure answers with.
"""

import asyncio
import logging
import struct
from typing import Final, Protocol, cast

from emulators.service_bus.codec import (
    Array,
    CodecError,
    Described,
    Symbol,
    UByte,
    UInt,
    UShort,
    decode_at,
)
from emulators.service_bus.links import (
    SESSION_WINDOW,
    Endpoint,
    Link,
    ProtocolError,
    Refusal,
    Session,
)
from emulators.service_bus.performatives import (
    AmqpError,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Transfer,
    interpret,
)

MAX_FRAME_BYTES: Final = 1 << 20
"""Largest frame taken in; pyamqp sends up to 1 MiB to whoever allows it."""

ADVERTISED_FRAME_BYTES: Final = 65536
CHANNEL_MAX: Final = 4999
HANDLE_MAX: Final = 255
IDLE_TIMEOUT_MS: Final = 240_000
AMQP_HEADER: Final = b"AMQP\x00\x01\x00\x00"
SASL_HEADER: Final = b"AMQP\x03\x01\x00\x00"
EMPTY_FRAME: Final = b"\x00\x00\x00\x08\x02\x00\x00\x00"
_FRAME: Final = struct.Struct(">IBBH")

logger = logging.getLogger(__name__)


class Handler(Protocol):
    """The broker, as a connection sees it."""

    def on_attach(self, link: Link) -> tuple[Endpoint, int]:
        """Gives the link its meaning and its message limit in bytes, or raises Refusal."""

    def on_close(self) -> None:
        """The connection is gone; every link was detached before."""


class HandlerFactory(Protocol):
    """Makes the handler of a new connection."""

    def __call__(self, connection: "Connection") -> Handler:
        """One handler per connection, because claims belong to a connection."""


class Connection(asyncio.Protocol):
    """One client. Everything runs in the event loop's callbacks; there is no task to leak."""

    def __init__(self, make_handler: HandlerFactory) -> None:
        self._handler = make_handler(self)
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._sessions: dict[int, Session] = {}
        self._header_seen = False
        self._sasl = False
        self._opened = False
        self._closing = False
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeat_seconds: float | None = None
        self.peer_max_frame_bytes = 512

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._heard_at = asyncio.get_running_loop().time()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the TCP connection is gone; locks of its messages live until they expire."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._transport = None
        self._handler.on_close()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came; handles every whole frame among them."""
        self._heard_at = asyncio.get_running_loop().time()
        self._buffer += data
        try:
            self._consume()
        except ProtocolError as error:
            self.close(error.error)
        except CodecError as error:
            self.close(AmqpError(Symbol("amqp:decode-error"), str(error)))

    def write(self, channel: int, performative: Composite, payload: bytes = b"") -> None:
        """Sends one frame; after the close nothing is sent."""
        if self._transport is None or (self._closing and not isinstance(performative, Close)):
            return
        body = performative.encode()
        size = 8 + len(body) + len(payload)
        self._transport.write(_FRAME.pack(size, 2, int(self._sasl), channel) + body + payload)

    def close(self, error: AmqpError | None = None) -> None:
        """Ends the connection: a close frame where the peer can read one, then TCP's end."""
        if self._transport is None or self._closing:
            return
        self._closing = True
        if self._opened:
            self.write(0, Close(error))
        if error is not None:
            logger.info("connection closed: %s: %s", error.condition, error.description)
        self._transport.close()

    def _consume(self) -> None:
        buffer = self._buffer
        while len(buffer) >= 8 and not self._closing:
            if not self._header_seen:
                self._on_header(bytes(buffer[:8]))
                del buffer[:8]
                continue
            size, offset, kind, channel = _FRAME.unpack_from(buffer)
            if not 8 <= size <= MAX_FRAME_BYTES or not 2 <= offset <= size // 4:
                raise ProtocolError("amqp:connection:framing-error", f"a frame of {size} bytes")
            if len(buffer) < size:
                return
            frame = bytes(buffer[offset * 4 : size])
            del buffer[:size]
            if frame:
                self._on_frame(kind, channel, frame)

    def _on_header(self, header: bytes) -> None:
        if self._transport is None:
            return
        if header not in (AMQP_HEADER, SASL_HEADER):
            self._closing = True
            self._transport.write(SASL_HEADER)
            self._transport.close()
            return
        self._header_seen = True
        self._sasl = header == SASL_HEADER
        self._transport.write(header)
        if self._sasl:
            names = ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL")
            self.write(0, SaslMechanisms(Array(Symbol, tuple(Symbol(name) for name in names))))

    def _on_frame(self, kind: int, channel: int, frame: bytes) -> None:
        value, end = decode_at(frame)
        performative = interpret(value)
        if isinstance(performative, Described) or not isinstance(performative, Composite):
            raise CodecError("a frame holds no known performative")
        if self._sasl:
            self._on_sasl(kind, performative)
        elif kind != 0:
            raise ProtocolError("amqp:connection:framing-error", f"frame type {kind}")
        elif isinstance(performative, Open):
            self._on_open(performative)
        elif not self._opened:
            raise ProtocolError("amqp:illegal-state", "the first frame must be open")
        else:
            self._on_performative(channel, performative, frame[end:])

    def _on_sasl(self, kind: int, performative: Composite) -> None:
        """Any mechanism is let in: who the client is shows in its claims, as in Azure."""
        if kind != 1 or not isinstance(performative, SaslInit):
            raise ProtocolError("amqp:illegal-state", "expected sasl-init")
        self.write(0, SaslOutcome(UByte(0)))
        self._sasl = self._header_seen = False

    def _on_open(self, theirs: Open) -> None:
        if self._opened:
            raise ProtocolError("amqp:illegal-state", "the connection is open already")
        self._opened = True
        self.peer_max_frame_bytes = min(
            max(512, int(theirs.max_frame_size or MAX_FRAME_BYTES)), MAX_FRAME_BYTES
        )
        self.write(
            0,
            Open(
                container_id="service-bus-emulator",
                max_frame_size=UInt(ADVERTISED_FRAME_BYTES),
                channel_max=UShort(CHANNEL_MAX),
                idle_time_out=UInt(IDLE_TIMEOUT_MS),
                properties={Symbol("product"): "darkroom service bus emulator"},
            ),
        )
        if theirs.idle_time_out:
            self._heartbeat_seconds = max(0.5, theirs.idle_time_out / 2000)
        self._tick()

    def _tick(self) -> None:
        """Sends the heartbeat the peer asked for; drops a peer silent for twice our limit."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._closing:
            return
        if loop.time() - self._heard_at > 2 * IDLE_TIMEOUT_MS / 1000:
            self.close(AmqpError(Symbol("amqp:resource-limit-exceeded"), "the client is silent"))
            return
        if self._heartbeat_seconds is not None:
            self._transport.write(EMPTY_FRAME)
        self._timer = loop.call_later(self._heartbeat_seconds or 30.0, self._tick)

    def _on_performative(self, channel: int, performative: Composite, payload: bytes) -> None:
        if isinstance(performative, Close):
            self.close()
            return
        if isinstance(performative, Begin):
            self._on_begin(channel, performative)
            return
        session = self._sessions.get(channel)
        if session is None:
            return  # frames may cross our end of the session
        if isinstance(performative, Transfer):
            session.on_transfer(performative, payload)
        elif isinstance(performative, Disposition):
            session.on_disposition(performative)
        elif isinstance(performative, Flow):
            session.on_flow(performative)
        elif isinstance(performative, Attach):
            self._on_attach(session, performative)
        elif isinstance(performative, Detach):
            link = session.links.get(performative.handle)
            if link is not None:
                link.on_detach()
        elif isinstance(performative, End):
            del self._sessions[channel]
            session.close()
            self.write(channel, End())
        else:
            raise ProtocolError("amqp:illegal-state", f"unexpected {performative.NAME}")

    def _on_begin(self, channel: int, theirs: Begin) -> None:
        if channel in self._sessions or channel > CHANNEL_MAX:
            raise ProtocolError("amqp:not-allowed", f"channel {channel} cannot begin")
        self._sessions[channel] = Session(
            self, channel, int(theirs.next_outgoing_id), int(theirs.incoming_window), HANDLE_MAX + 1
        )
        self.write(
            channel,
            Begin(
                remote_channel=UShort(channel),
                next_outgoing_id=UInt(0),
                incoming_window=UInt(SESSION_WINDOW),
                outgoing_window=UInt(SESSION_WINDOW),
                handle_max=UInt(HANDLE_MAX),
            ),
        )

    def _on_attach(self, session: Session, attach: Attach) -> None:
        link = session.add(attach)
        try:
            endpoint, limit_bytes = self._handler.on_attach(link)
        except Refusal as refusal:
            link.refuse(refusal.error)
        else:
            link.accept(endpoint, limit_bytes)

    def links(self) -> list[Link]:
        """Every link of the connection."""
        return [link for session in self._sessions.values() for link in session.links.values()]
