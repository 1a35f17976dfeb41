"""Sessions and links: handles, credit, deliveries and their settlement.

`Session` and `Link` know AMQP and nothing of queues. What a link means is its `Endpoint`, which
the broker returns when a link attaches.

Source: OASIS AMQP 1.0, part 2, sections 2.5 to 2.7.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from emulators.service_bus.codec import Symbol, UByte, UInt, ULong
from emulators.service_bus.performatives import (
    AmqpError,
    Attach,
    Composite,
    Detach,
    Disposition,
    Flow,
    Rejected,
    Source,
    Target,
    Transfer,
)

INCOMING_CREDIT: Final = 1000
SESSION_WINDOW: Final = 65536
SEQUENCE_MODULUS: Final = 1 << 32


class Refusal(Exception):
    """The broker will not have this link or request; `error` says why, in AMQP's words."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.error = AmqpError(Symbol(condition), description)


class ProtocolError(Exception):
    """The peer broke AMQP's rules: the connection ends with this condition."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.error = AmqpError(Symbol(condition), description)


@dataclass(slots=True)
class Delivery:
    """One whole incoming message; `oversized` when it passed the link's limit (no payload)."""

    delivery_id: int
    tag: bytes
    message_format: int
    settled: bool
    payload: bytes
    oversized: bool = False


class Endpoint(Protocol):
    """What the broker does on a link."""

    def on_delivery(self, delivery: Delivery) -> None:
        """The peer sent a message."""

    def on_credit(self) -> None:
        """The peer changed its credit or asked to drain."""

    def on_outcome(self, delivery_id: int, tag: bytes | None, state: object, settled: bool) -> None:
        """The peer decided about a delivery of ours; `tag` is None when it is not known."""

    def on_detach(self) -> None:
        """The link is gone, by whichever side."""


class Frames(Protocol):
    """Where a session writes: its connection."""

    peer_max_frame_bytes: int

    def write(self, channel: int, performative: Composite, payload: bytes = b"") -> None:
        """Sends one frame."""


@dataclass(slots=True)
class _Partial:
    delivery_id: int
    tag: bytes
    message_format: int
    settled: bool
    chunks: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


class Link:
    """One end of a link. `sending` says that messages go from us to the peer."""

    def __init__(self, session: "Session", attach: Attach) -> None:
        self.session = session
        self.name = attach.name
        self.handle = int(attach.handle)
        self.sending = bool(attach.role)
        self.source = attach.source if isinstance(attach.source, Source) else None
        self.target = attach.target if isinstance(attach.target, Target) else None
        self.properties = attach.properties or {}
        self.sends_settled = attach.snd_settle_mode == 1
        self.max_message_bytes = 0
        self.credit = 0
        self.drain = False
        self.endpoint: Endpoint | None = None
        self.closed = False
        self._attach = attach
        self._delivery_count = 0
        self._partial: _Partial | None = None
        self._granted = 0

    def accept(self, endpoint: Endpoint, max_message_bytes: int) -> None:
        """Answers the attach: the link lives, with messages up to that many bytes."""
        self.endpoint, self.max_message_bytes = endpoint, max_message_bytes
        self._reply(self.source or Source(), self.target or Target(), max_message_bytes)
        if not self.sending:
            self.grant()

    def refuse(self, error: AmqpError) -> None:
        """Answers the attach with null termini and a closing detach, as Azure does."""
        self._reply(None, None, 0)
        self.detach(error)

    def _reply(self, source: Source | None, target: Target | None, max_bytes: int) -> None:
        theirs = self._attach
        self.session.write(
            Attach(
                name=self.name,
                handle=UInt(self.handle),
                role=not theirs.role,
                snd_settle_mode=theirs.snd_settle_mode or UByte(0),
                rcv_settle_mode=theirs.rcv_settle_mode or UByte(0),
                source=source,
                target=target,
                initial_delivery_count=UInt(0) if self.sending else None,
                max_message_size=ULong(max_bytes) if max_bytes else None,
            )
        )

    def grant(self) -> None:
        """Tops the peer's credit up; called again each time half of it is used."""
        self._granted = INCOMING_CREDIT
        self.session.flow(self, self._delivery_count, INCOMING_CREDIT, drain=False)

    def on_flow(self, flow: Flow) -> None:
        """Takes the peer's credit (receiving peers only; a sender's flow means nothing here)."""
        if not self.sending:
            if flow.echo:
                self.session.flow(self, self._delivery_count, self._granted, drain=False)
            return
        theirs = int(flow.delivery_count or 0)
        distance = (theirs - self._delivery_count) % SEQUENCE_MODULUS
        if distance >= SEQUENCE_MODULUS // 2:
            distance -= SEQUENCE_MODULUS
        self.credit = max(0, distance + int(flow.link_credit or 0))
        self.drain = bool(flow.drain)
        if self.endpoint is not None:
            self.endpoint.on_credit()
        if flow.echo and not self.drain:
            self.session.flow(self, self._delivery_count, self.credit, drain=False)

    def drained(self) -> None:
        """Nothing more to send: uses up the credit that is left and tells the peer."""
        self._delivery_count = (self._delivery_count + self.credit) % SEQUENCE_MODULUS
        self.credit, self.drain = 0, False
        self.session.flow(self, self._delivery_count, 0, drain=True)

    def send(self, tag: bytes, payload: bytes, settled: bool) -> int:
        """Sends one message (message format 0) and returns its delivery id."""
        self.credit = max(0, self.credit - 1)
        self._delivery_count = (self._delivery_count + 1) % SEQUENCE_MODULUS
        return self.session.send(self, tag, payload, settled)

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        """Collects the frames of a message and hands the whole one to the endpoint."""
        partial = self._partial
        if partial is None:
            if transfer.delivery_id is None:
                raise ProtocolError("amqp:invalid-field", "a first transfer needs a delivery-id")
            partial = self._partial = _Partial(
                int(transfer.delivery_id),
                transfer.delivery_tag or b"",
                int(transfer.message_format or 0),
                False,
            )
        partial.settled = partial.settled or bool(transfer.settled)
        partial.size_bytes += len(payload)
        if partial.size_bytes <= self.max_message_bytes:
            partial.chunks.append(payload)
        else:
            partial.chunks.clear()
        if transfer.more and not transfer.aborted:
            return
        self._partial = None
        self._delivery_count = (self._delivery_count + 1) % SEQUENCE_MODULUS
        self._granted -= 1
        if not transfer.aborted and self.endpoint is not None:
            self.endpoint.on_delivery(self._whole(partial))
        if self._granted <= INCOMING_CREDIT // 2 and not self.closed:
            self.grant()

    def _whole(self, partial: _Partial) -> Delivery:
        return Delivery(
            partial.delivery_id,
            partial.tag,
            partial.message_format,
            partial.settled,
            b"".join(partial.chunks),
            oversized=partial.size_bytes > self.max_message_bytes,
        )

    def settle(self, delivery_id: int, state: Composite) -> None:
        """Tells the peer that a delivery, of either direction, is settled with this outcome."""
        if not self.closed:
            self.session.write(
                Disposition(
                    role=not self.sending,
                    first=UInt(delivery_id),
                    last=UInt(delivery_id),
                    settled=True,
                    state=state,
                )
            )

    def reject(self, delivery_id: int, condition: str, description: str) -> None:
        """Settles as rejected, with an error."""
        self.settle(delivery_id, Rejected(AmqpError(Symbol(condition), description)))

    def detach(self, error: AmqpError | None = None) -> None:
        """Closes the link from our side."""
        if not self.closed:
            self.session.write(Detach(UInt(self.handle), closed=True, error=error))
            self.session.forget(self)

    def on_detach(self) -> None:
        """The peer closed the link: answers and forgets it."""
        if not self.closed:
            self.session.write(Detach(UInt(self.handle), closed=True))
            self.session.forget(self)


class Session:
    """A session: the links by handle, and the deliveries that wait for the peer's outcome."""

    def __init__(
        self, frames: Frames, channel: int, peer_next_id: int, peer_window: int, max_links: int
    ) -> None:
        self._frames = frames
        self.channel = channel
        self.links: dict[int, Link] = {}
        self._max_links = max_links
        self._next_incoming_id = peer_next_id
        self._next_outgoing_id = 0
        self._next_delivery_id = 0
        self._peer_window = peer_window
        self._waiting: deque[Callable[[], None]] = deque()
        self._unsettled: dict[int, tuple[Link, bytes]] = {}

    def write(self, performative: Composite, payload: bytes = b"") -> None:
        """Sends one frame on this session's channel."""
        self._frames.write(self.channel, performative, payload)

    def add(self, attach: Attach) -> Link:
        """Registers a link under the peer's handle, which serves as ours too."""
        if attach.handle in self.links or len(self.links) >= self._max_links:
            raise ProtocolError("amqp:session:handle-in-use", f"handle {attach.handle} is taken")
        link = self.links[int(attach.handle)] = Link(self, attach)
        return link

    def forget(self, link: Link) -> None:
        """Drops a link and what it still had unsettled; the locks of its messages live on."""
        link.closed = True
        if self.links.get(link.handle) is link:
            del self.links[link.handle]
        for delivery_id in [n for n, (owner, _) in self._unsettled.items() if owner is link]:
            del self._unsettled[delivery_id]
        if link.endpoint is not None:
            link.endpoint.on_detach()

    def flow(self, link: Link | None, delivery_count: int, credit: int, drain: bool) -> None:
        """Sends our windows, with a link's credit if one is given."""
        self.write(
            Flow(
                next_incoming_id=UInt(self._next_incoming_id),
                incoming_window=UInt(SESSION_WINDOW),
                next_outgoing_id=UInt(self._next_outgoing_id),
                outgoing_window=UInt(SESSION_WINDOW),
                handle=UInt(link.handle) if link else None,
                delivery_count=UInt(delivery_count) if link else None,
                link_credit=UInt(credit) if link else None,
                drain=drain,
                echo=False,
            )
        )

    def on_flow(self, flow: Flow) -> None:
        """Takes the peer's window and, for a link, its credit."""
        seen = int(flow.next_incoming_id) if flow.next_incoming_id is not None else 0
        in_flight = (self._next_outgoing_id - seen) % SEQUENCE_MODULUS
        self._peer_window = max(0, int(flow.incoming_window) - in_flight)
        while self._waiting and self._peer_window > 0:
            self._waiting.popleft()()
        if flow.handle is None:
            if flow.echo:
                self.flow(None, 0, 0, drain=False)
            return
        link = self.links.get(flow.handle)
        if link is not None:  # a flow may cross our detach
            link.on_flow(flow)

    def send(self, link: Link, tag: bytes, payload: bytes, settled: bool) -> int:
        """Sends a delivery in as many frames as the peer's frame size needs."""
        delivery_id = self._next_delivery_id
        self._next_delivery_id = (delivery_id + 1) % SEQUENCE_MODULUS
        if not settled:
            self._unsettled[delivery_id] = (link, tag)
        room = self._frames.peer_max_frame_bytes - 128
        for start in range(0, max(1, len(payload)), room):
            chunk = payload[start : start + room]
            transfer = Transfer(
                handle=UInt(link.handle),
                delivery_id=UInt(delivery_id),
                delivery_tag=tag,
                message_format=UInt(0),
                settled=settled,
                more=start + room < len(payload),
            )
            if self._waiting or self._peer_window <= 0:
                self._waiting.append(lambda t=transfer, c=chunk: self._transfer(t, c))  # type: ignore[misc]
            else:
                self._transfer(transfer, chunk)
        return delivery_id

    def _transfer(self, transfer: Transfer, chunk: bytes) -> None:
        self._next_outgoing_id = (self._next_outgoing_id + 1) % SEQUENCE_MODULUS
        self._peer_window -= 1
        self.write(transfer, chunk)

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        """Routes a transfer to its link; one for a link just detached is dropped."""
        self._next_incoming_id = (self._next_incoming_id + 1) % SEQUENCE_MODULUS
        link = self.links.get(transfer.handle)
        if link is not None and not link.sending:
            link.on_transfer(transfer, payload)

    def on_disposition(self, disposition: Disposition) -> None:
        """The peer's outcome for deliveries of ours, one call of the endpoint for each."""
        if not disposition.role:
            return  # a sender settling what we have settled already
        first = int(disposition.first)
        last = int(disposition.last) if disposition.last is not None else first
        if last - first > len(self._unsettled) + INCOMING_CREDIT:
            raise ProtocolError("amqp:invalid-field", "a disposition covers too many deliveries")
        for delivery_id in range(first, last + 1):
            link, tag = self._unsettled.pop(delivery_id, (None, None))
            settled = bool(disposition.settled)
            if link is not None and link.endpoint is not None:
                link.endpoint.on_outcome(delivery_id, tag, disposition.state, settled)
            elif not settled:
                self._lost(delivery_id)

    def _lost(self, delivery_id: int) -> None:
        """Answers for a delivery that nobody knows any more, so that the peer stops waiting."""
        error = AmqpError(
            Symbol("com.microsoft:message-lock-lost"), "the delivery is unknown or settled already"
        )
        self.write(
            Disposition(
                role=False,
                first=UInt(delivery_id),
                last=UInt(delivery_id),
                settled=True,
                state=Rejected(error),
            )
        )

    def close(self) -> None:
        """Forgets all links; their endpoints are told."""
        for link in list(self.links.values()):
            self.forget(link)
        self._waiting.clear()
