"""Frames by hand: what a well-behaved SDK never sends, and what it could not show."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulators.service_bus.broker import Broker
from emulators.service_bus.cbs import Authority
from emulators.service_bus.codec import Described, Symbol, UByte, UInt, ULong, decode_at, encode
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.engine import AMQP_HEADER, SASL_HEADER, Connection
from emulators.service_bus.message import DATA, parse
from emulators.service_bus.performatives import (
    Accepted,
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
    Rejected,
    SaslInit,
    Source,
    Target,
    Transfer,
    interpret,
)
from emulators.service_bus.server import now_ms
from emulators.service_bus.store import MemoryStore

BODY = encode(Described(ULong(DATA), b"body"))


class Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


class Peer:
    """A client made of bytes. The claims check is opened, to look at links alone."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.wire = connection, Wire()
        connection.connection_made(self.wire)

    def send(self, *performatives: Composite, channel: int = 0, payload: bytes = b"") -> None:
        for one in performatives:
            body = one.encode() + payload
            kind = int(isinstance(one, SaslInit))
            self.connection.data_received(
                struct.pack(">IBBH", 8 + len(body), 2, kind, channel) + body
            )

    def open(self, **fields: object) -> None:
        self.connection.data_received(AMQP_HEADER)
        self.send(Open("peer", **fields), Begin(incoming_window=UInt(100)))

    def replies(self) -> list[tuple[object, bytes]]:
        found, data = [], bytes(self.wire.written)
        self.wire.written.clear()
        while data:
            if data[:4] == b"AMQP":
                data = data[8:]
                continue
            size = int.from_bytes(data[:4], "big")
            if size > 8:
                value, end = decode_at(data[8:size])
                found.append((interpret(value), data[8 + end : size]))
            data = data[size:]
        return found

    def last(self, kind: type) -> object:
        return [one for one, _ in self.replies() if isinstance(one, kind)][-1]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    authority = Authority("name", "key", None, lambda: 0.0)
    made = Broker(authority, MemoryStore(), now_ms, max_message_bytes=2000)
    made.create_queue("q", QueueSettings())
    yield made
    await made.close()


@pytest.fixture
async def peer(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Peer:
    monkeypatch.setattr("emulators.service_bus.cbs.Claims.cover", lambda self, path: True)
    return Peer(Connection(broker.connect))


def receiver(name: str = "in", handle: int = 0, settle: int = 0) -> Attach:
    return Attach(
        name, UInt(handle), role=True, snd_settle_mode=UByte(settle),
        source=Source("q"), target=Target("here"),
    )  # fmt: skip


def sender(name: str = "out", handle: int = 1) -> Attach:
    return Attach(name, UInt(handle), role=False, source=Source("here"), target=Target("q"))


def credit(amount: int, *, count: int = 0, drain: bool = False, handle: int = 0) -> Flow:
    return Flow(
        next_incoming_id=UInt(0), incoming_window=UInt(100), handle=UInt(handle),
        delivery_count=UInt(count), link_credit=UInt(amount), drain=drain,
    )  # fmt: skip


def put(broker: Broker, *bodies: bytes) -> None:
    queue = broker.queue("q")
    assert queue is not None
    for body in bodies:
        queue.send(parse(encode(Described(ULong(DATA), body))))


async def test_a_client_that_speaks_something_else_is_shown_the_header_and_dropped(
    peer: Peer,
) -> None:
    peer.connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert bytes(peer.wire.written) == SASL_HEADER
    assert peer.wire.closed


async def test_sasl_offers_anonymous_and_takes_it(peer: Peer) -> None:
    peer.connection.data_received(SASL_HEADER)
    assert b"ANONYMOUS" in peer.wire.written
    peer.send(SaslInit(Symbol("ANONYMOUS")))
    peer.wire.written.clear()
    peer.open()
    assert isinstance(peer.last(Begin), Begin)


async def test_bytes_may_come_one_at_a_time(peer: Peer) -> None:
    body = Open("peer").encode()
    data = AMQP_HEADER + struct.pack(">IBBH", 8 + len(body), 2, 0, 0) + body
    for number in range(len(data)):
        peer.connection.data_received(data[number : number + 1])
    assert isinstance(peer.last(Open), Open)


async def test_empty_frames_mean_nothing(peer: Peer) -> None:
    peer.open()
    peer.connection.data_received(struct.pack(">IBBH", 8, 2, 0, 0) * 3)
    assert not peer.wire.closed


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">IBBH", 4, 2, 0, 0),
        struct.pack(">IBBH", 1 << 30, 2, 0, 0),
        struct.pack(">IBBH", 12, 9, 0, 0) + b"\0\0\0\0",
        struct.pack(">IBBH", 9, 2, 0, 0) + b"\x40",
        struct.pack(">IBBH", 10, 2, 0, 0) + b"\x00\xff",
        struct.pack(">IBBH", 12, 2, 0, 0) + b"\x00\x53\x99\x45",
    ],
)
async def test_a_broken_frame_closes_the_connection_with_a_reason(peer: Peer, frame: bytes) -> None:
    peer.open()
    peer.connection.data_received(frame)
    closed = peer.last(Close)
    assert isinstance(closed, Close)
    assert isinstance(closed.error, AmqpError)
    assert peer.wire.closed


async def test_what_comes_before_open_is_refused(peer: Peer) -> None:
    peer.connection.data_received(AMQP_HEADER)
    peer.send(Begin())
    assert peer.wire.closed


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(data=st.binary(max_size=60), opened=st.booleans())
async def test_no_bytes_raise_out_of_the_connection(
    broker: Broker, data: bytes, opened: bool
) -> None:
    peer = Peer(Connection(broker.connect))
    if opened:
        peer.open()
        data = struct.pack(">IBBH", 8 + len(data), 2, 0, 0) + data
    peer.connection.data_received(data)
    peer.connection.connection_lost(None)


async def test_credit_bounds_what_is_sent(peer: Peer, broker: Broker) -> None:
    put(broker, b"1", b"2", b"3")
    peer.open()
    peer.send(receiver(), credit(2))
    broker.tick()
    sent = [payload for one, payload in peer.replies() if isinstance(one, Transfer)]
    assert len(sent) == 2
    peer.send(credit(1, count=2))
    broker.tick()
    assert isinstance(peer.last(Transfer), Transfer)


async def test_a_drain_uses_the_credit_up_and_is_answered(peer: Peer, broker: Broker) -> None:
    put(broker, b"1")
    peer.open()
    peer.send(receiver(), credit(5, drain=True))
    broker.tick()
    answer = peer.last(Flow)
    assert isinstance(answer, Flow)
    assert (answer.drain, answer.delivery_count, answer.link_credit) == (True, 5, 0)
    put(broker, b"2")
    broker.tick()
    assert not [one for one, _ in peer.replies() if isinstance(one, Transfer)]


async def test_a_long_message_goes_out_in_frames_that_the_peer_takes(
    peer: Peer, broker: Broker
) -> None:
    put(broker, b"x" * 1500)
    peer.open(max_frame_size=UInt(512))
    peer.send(receiver(), credit(1))
    broker.tick()
    frames = [(one, raw) for one, raw in peer.replies() if isinstance(one, Transfer)]
    assert len(frames) > 2
    assert [one.more for one, _ in frames] == [True] * (len(frames) - 1) + [False]
    assert b"x" * 1500 in b"".join(raw for _, raw in frames)


async def test_the_session_window_holds_frames_back(peer: Peer, broker: Broker) -> None:
    put(broker, b"1", b"2", b"3")
    peer.connection.data_received(AMQP_HEADER)
    peer.send(Open("peer"), Begin(incoming_window=UInt(1)), receiver())
    flow = credit(3)
    flow.incoming_window = UInt(1)
    peer.send(flow)
    broker.tick()
    assert len([one for one, _ in peer.replies() if isinstance(one, Transfer)]) == 1
    peer.send(Flow(next_incoming_id=UInt(1), incoming_window=UInt(5)))
    assert len([one for one, _ in peer.replies() if isinstance(one, Transfer)]) == 2


async def test_a_message_in_pieces_is_put_together(peer: Peer, broker: Broker) -> None:
    peer.open()
    peer.send(sender())
    for start, more in ((0, True), (4, False)):
        piece = Transfer(UInt(1), UInt(0), b"t", UInt(0), more=more)
        peer.send(piece, payload=BODY[start : start + 4] if more else BODY[start:])
    broker.tick()
    settled = peer.last(Disposition)
    assert isinstance(settled, Disposition)
    assert (settled.settled, settled.state) == (True, Accepted())
    queue = broker.queue("q")
    assert queue is not None
    assert queue.counts().active == 1


async def test_an_aborted_message_is_forgotten(peer: Peer, broker: Broker) -> None:
    peer.open()
    peer.send(sender())
    peer.send(Transfer(UInt(1), UInt(0), b"t", UInt(0), more=True), payload=BODY)
    peer.send(Transfer(UInt(1), UInt(0), aborted=True))
    broker.tick()
    queue = broker.queue("q")
    assert queue is not None
    assert queue.counts().active == 0


@pytest.mark.parametrize(
    ("payload", "condition"),
    [(b"x" * 3000, "amqp:link:message-size-exceeded"), (b"nonsense", "amqp:decode-error")],
)
async def test_a_bad_message_is_rejected_and_the_link_lives(
    peer: Peer, broker: Broker, payload: bytes, condition: str
) -> None:
    peer.open()
    peer.send(sender())
    peer.send(Transfer(UInt(1), UInt(0), b"t", UInt(0)), payload=payload)
    peer.send(Transfer(UInt(1), UInt(1), b"u", UInt(0)), payload=BODY)
    broker.tick()
    first, second = (one for one, _ in peer.replies() if isinstance(one, Disposition))
    assert isinstance(first.state, Rejected)
    assert first.state.error is not None
    assert first.state.error.condition == condition
    assert second.state == Accepted()


async def test_credit_is_topped_up_before_it_runs_out(peer: Peer, broker: Broker) -> None:
    peer.open()
    peer.send(sender())
    peer.replies()
    for number in range(600):
        peer.send(Transfer(UInt(1), UInt(number), b"t", UInt(0), settled=True), payload=BODY)
    flow = peer.last(Flow)
    assert isinstance(flow, Flow)
    assert (flow.delivery_count, flow.link_credit) == (500, 1000)


async def test_an_outcome_for_an_unknown_delivery_is_answered_with_a_lost_lock(
    peer: Peer, broker: Broker
) -> None:
    peer.open()
    peer.send(receiver())
    peer.send(Disposition(True, UInt(7), UInt(7), settled=False, state=Accepted()))
    answer = peer.last(Disposition)
    assert isinstance(answer, Disposition)
    assert isinstance(answer.state, Rejected)


async def test_a_range_of_outcomes_settles_each(peer: Peer, broker: Broker) -> None:
    put(broker, b"1", b"2", b"3")
    peer.open()
    peer.send(receiver(), credit(3))
    broker.tick()
    peer.send(Disposition(True, UInt(0), UInt(2), settled=True, state=Accepted()))
    queue = broker.queue("q")
    assert queue is not None
    assert queue.counts().active == 0


async def test_a_range_too_wide_to_be_true_is_refused(peer: Peer) -> None:
    peer.open()
    peer.send(Disposition(True, UInt(0), UInt(1 << 31), settled=True, state=Accepted()))
    assert peer.wire.closed


@pytest.mark.parametrize(
    "attach",
    [
        Attach("x", UInt(0), role=True, source=Source("absent"), target=Target("here")),
        Attach(
            "x", UInt(0), role=False, source=Source("here"), target=Target("q/$DeadLetterQueue")
        ),
        Attach("x", UInt(0), role=False, source=Source("here")),
        Attach(
            "x",
            UInt(0),
            role=True,
            source=Source("q", filter={Symbol("com.microsoft:session-filter"): None}),
        ),
    ],
)
async def test_a_link_that_cannot_be_is_refused_with_null_termini(
    peer: Peer, attach: Attach
) -> None:
    peer.open()
    peer.send(attach)
    answer, detach = (one for one, _ in peer.replies() if isinstance(one, Attach | Detach))
    assert isinstance(answer, Attach)
    assert (answer.source, answer.target) == (None, None)
    assert isinstance(detach, Detach)
    assert detach.closed
    assert detach.error is not None


async def test_links_and_sessions_end_politely(peer: Peer, broker: Broker) -> None:
    peer.open()
    peer.send(receiver(), sender())
    assert len(broker.outlet("q").links) == 2
    peer.send(Detach(UInt(0), closed=True))
    assert isinstance(peer.last(Detach), Detach)
    peer.send(End())
    assert isinstance(peer.last(End), End)
    assert not broker.outlet("q").links
    peer.send(credit(5), Detach(UInt(0), closed=True))
    peer.send(Close())
    assert peer.wire.closed


def make_silent(loop: asyncio.AbstractEventLoop, seconds: float) -> Callable[[], float]:
    real = loop.time
    return lambda: real() + seconds


async def test_the_heartbeat_that_the_peer_asks_for_is_sent(peer: Peer) -> None:
    peer.open(idle_time_out=UInt(1000))
    before = len(peer.wire.written)
    peer.connection._tick()
    assert len(peer.wire.written) == before + 8


async def test_a_peer_silent_for_long_is_dropped(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.open()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", make_silent(loop, 481))
    peer.connection._tick()
    assert peer.wire.closed


async def test_what_falls_due_goes_out_by_itself(peer: Peer, broker: Broker) -> None:
    peer.open()
    peer.send(receiver(), credit(1))
    outlet = broker.outlet("q")
    outlet.queue.send(parse(BODY), now_ms() + 100)
    broker.touch(outlet)
    async with asyncio.timeout(10):
        while not any(isinstance(one, Transfer) for one, _ in peer.replies()):
            await asyncio.sleep(0.01)


class FailingStore(MemoryStore):
    """A disk that is full."""

    def commit(self) -> None:
        raise OSError("no space left")


async def test_nothing_is_acknowledged_that_could_not_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[Exception] = []
    authority = Authority("name", "key", None, lambda: 0.0)
    broker = Broker(authority, MemoryStore(), now_ms, on_failure=failures.append)
    broker.create_queue("q", QueueSettings())
    monkeypatch.setattr("emulators.service_bus.cbs.Claims.cover", lambda self, path: True)
    monkeypatch.setattr(broker, "_store", FailingStore())
    peer = Peer(Connection(broker.connect))
    peer.open()
    peer.send(sender())
    peer.send(Transfer(UInt(1), UInt(0), b"t", UInt(0)), payload=BODY)
    broker.tick()
    assert [type(failure) for failure in failures] == [OSError]
    assert not [one for one, _ in peer.replies() if isinstance(one, Disposition)]
