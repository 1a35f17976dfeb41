"""What is special about Service Bus: credit, retry copies, dead letters, locks, connections."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageSizeExceededError,
    ServiceBusAuthenticationError,
    ServiceBusServerBusyError,
)
from structlog.testing import capture_logs

from darkroom.azure_clients import emulated_service_bus, queue_errors
from darkroom.errors import (
    DarkroomError,
    InvalidInput,
    LeaseLost,
    QueueUnavailable,
    SettingsError,
)
from darkroom.messages import decode
from darkroom.queues.base import MAX_DELIVERY_COUNT_EXCEEDED, QueueDepth
from darkroom.queues.service_bus import ServiceBusJobQueue, ServiceBusLease
from darkroom.queues.service_bus_receiver import ECHO_SECONDS
from emulators.service_bus.links import Link
from tests.azure.emulated import LEASE_SECONDS, MAX_DELIVERY_COUNT, Bus, running_bus
from tests.samples import make_message

AT_ONCE_SECONDS = 1.5  # on a busy machine; stale credit costs up to 5 s


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with running_bus() as running:
        yield running


@pytest.fixture
async def pair(bus: Bus) -> AsyncIterator[tuple[ServiceBusJobQueue, ServiceBusJobQueue]]:
    queues = bus.open_queue(), bus.open_queue()
    await asyncio.gather(*(queue.open() for queue in queues))
    yield queues
    await asyncio.gather(*(queue.close() for queue in queues))


@pytest.fixture
async def once(bus: Bus) -> AsyncIterator[ServiceBusJobQueue]:
    """A queue with duplicate detection."""
    queue = bus.open_queue("once")
    yield queue
    await queue.close()


async def seconds_until_leased(free: ServiceBusJobQueue, sender: ServiceBusJobQueue) -> float:
    """Send one message and return how long a waiting worker took to get it."""
    waiting = asyncio.create_task(free.lease(1, 20))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await sender.send(make_message())
    (lease,) = await waiting
    assert lease.delivery_count == 1
    await lease.complete()
    return time.monotonic() - began


async def test_a_call_that_found_nothing_leaves_no_credit_behind(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue],
) -> None:
    """Fails (2 to 5 s a message) if the receiver does not withdraw its credit: tried."""
    busy, free = pair
    for _ in range(3):
        assert await busy.lease(2, 0.1) == []
        assert await seconds_until_leased(free, busy) < AT_ONCE_SECONDS


async def test_a_call_that_found_less_than_it_asked_for_leaves_no_credit_behind(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue],
) -> None:
    busy, free = pair
    await busy.send(make_message())
    (held,) = await busy.lease(4, 5)
    for _ in range(3):
        assert await seconds_until_leased(free, busy) < AT_ONCE_SECONDS
    await held.complete()


async def test_a_cancelled_call_leaves_no_credit_and_no_message_behind(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue],
) -> None:
    busy, free = pair
    for delay in (0.3, 0.02, 0.0):
        waiting = asyncio.create_task(busy.lease(1, 30))
        await asyncio.sleep(delay)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await seconds_until_leased(free, busy) < AT_ONCE_SECONDS


async def test_a_message_that_meets_a_cancelled_call_is_given_back_uncounted(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue],
) -> None:
    busy, free = pair
    for _ in range(8):
        waiting = asyncio.create_task(busy.lease(1, 30))
        await asyncio.sleep(0.01)
        sending = asyncio.create_task(free.send(make_message()))
        await asyncio.sleep(0.001)
        waiting.cancel()
        await sending
        try:
            leases = await waiting
        except asyncio.CancelledError:
            leases = await free.lease(1, 5)
        assert [lease.delivery_count for lease in leases] == [1]
        await leases[0].complete()


async def test_a_broker_that_does_not_echo_is_waited_for_only_briefly(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AMQP asks for the echo, but nobody here has seen Azure's."""
    queue, other = pair
    usual = Link.on_flow
    monkeypatch.setattr(Link, "on_flow", lambda link, flow: usual(link, replace(flow, echo=False)))
    monkeypatch.setattr(Link, "drained", lambda link: None)
    await other.send(make_message())
    began = time.monotonic()
    (lease,) = await queue.lease(4, 10)
    assert time.monotonic() - began < ECHO_SECONDS + AT_ONCE_SECONDS
    await lease.complete()
    assert await seconds_until_leased(other, queue) < AT_ONCE_SECONDS


async def test_settling_does_not_wait_for_a_waiting_lease_call(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue],
) -> None:
    queue, other = pair
    for _ in range(20):
        await other.send(make_message())
    leases = await queue.lease(20, 5)
    waiting = asyncio.create_task(queue.lease(1, 30))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    for lease in leases:
        await lease.complete()
    assert time.monotonic() - began < 0.1 * len(leases)
    await other.send(make_message())
    assert len(await waiting) == 1


async def test_a_lock_is_kept_far_beyond_the_sdks_own_limit(bus: Bus) -> None:
    queue = bus.open_queue()
    await queue.send(make_message())
    (lease,) = await queue.lease(1, 5)
    held_seconds = 0.0
    while held_seconds < 900:  # the SDK's own renewer gives up after 300
        await bus.advance(LEASE_SECONDS * 0.6)
        held_seconds += LEASE_SECONDS * 0.6
        assert await lease.renew() > bus.now() + timedelta(seconds=LEASE_SECONDS * 0.9)
    assert await queue.depth() == QueueDepth(active=1, dead_lettered=0, scheduled=0)
    await lease.complete()
    await queue.close()


@pytest.mark.parametrize(("lock_seconds", "is_said"), [(60, False), (20, True)])
async def test_a_lock_that_is_shorter_than_the_lease_is_said_once(
    lock_seconds: int, is_said: bool
) -> None:
    async with running_bus(lock_duration_ms=lock_seconds * 1000) as bus:
        queue = bus.open_queue(lease_seconds=60.0)
        with capture_logs() as logged:
            for _ in range(2):
                await queue.send(make_message())
                await queue.lease(1, 5)
        await queue.close()
    assert [line["event"] for line in logged] == ["queue_lock_shorter_than_lease"] * is_said


async def test_a_lease_can_be_renewed_from_another_threads_loop(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue],
) -> None:
    queue, _ = pair
    await queue.send(make_message())
    (lease,) = await queue.lease(1, 5)
    renewed: list[object] = []
    thread = threading.Thread(target=lambda: renewed.append(asyncio.run(lease.renew())))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)
    assert renewed == [lease.expires_at]
    await lease.complete()


async def test_retry_copies_are_the_same_message_and_carry_its_count(
    bus: Bus, once: ServiceBusJobQueue
) -> None:
    """On a queue with duplicate detection, which would swallow a copy of the same id."""
    message = make_message(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    await once.send(message)
    for step, (delay_seconds, counted, expected) in enumerate(
        [(10.0, True, 1), (0.0, False, 2), (20.0, False, 2), (0.0, True, 2), (10.0, True, 3)]
    ):
        (lease,) = await once.lease(1, 5)
        assert lease.delivery_count == expected, f"step {step}"
        assert lease.message_id == message.job_id
        assert (decode(lease.body), dict(lease.properties)) == (message, dict(message.properties))
        await lease.abandon(delay_seconds=delay_seconds, counted=counted)
        await bus.advance(delay_seconds + 1)
    (dead,) = await once.dead_letters()
    assert (dead.reason, dead.delivery_count) == (MAX_DELIVERY_COUNT_EXCEEDED, MAX_DELIVERY_COUNT)
    assert dead.message_id == message.job_id


async def test_a_copy_whose_consumers_die_reaches_the_limit_too(bus: Bus) -> None:
    """The broker counts a copy's deliveries from 0; over the limit the adapter sets it aside."""
    queue = bus.open_queue()
    await queue.send(make_message())
    (lease,) = await queue.lease(1, 5)
    await lease.abandon(delay_seconds=5)
    await bus.advance(6)
    for delivery in (2, 3):
        (lease,) = await queue.lease(1, 5)
        assert lease.delivery_count == delivery
        await bus.advance(LEASE_SECONDS * 1.2)
    assert await queue.lease(1, 0.2) == []
    (dead,) = await queue.dead_letters()
    assert (dead.reason, dead.delivery_count) == (MAX_DELIVERY_COUNT_EXCEEDED, MAX_DELIVERY_COUNT)
    await queue.close()


async def test_putting_off_twice_makes_one_copy(once: ServiceBusJobQueue) -> None:
    """Dying between the copy's send and the original's completion repeats the step."""
    await once.send(make_message())
    (lease,) = await once.lease(1, 5)
    assert isinstance(lease, ServiceBusLease)
    await once.send_copy(lease.received, lease.delivery_count, 10)  # and the worker dies here
    await lease.abandon(delay_seconds=10)
    assert await once.depth() == QueueDepth(active=0, dead_lettered=0, scheduled=1)


async def test_a_lost_lock_makes_no_copy(bus: Bus) -> None:
    queue = bus.open_queue()
    await queue.send(make_message())
    (lease,) = await queue.lease(1, 5)
    await bus.advance(LEASE_SECONDS * 1.2)
    with pytest.raises(LeaseLost):
        await lease.abandon(delay_seconds=5)
    assert await queue.depth() == QueueDepth(active=1, dead_lettered=0, scheduled=0)
    await queue.close()


async def test_a_resubmitted_dead_letter_is_no_duplicate(once: ServiceBusJobQueue) -> None:
    message = make_message()
    await once.send(message)
    (lease,) = await once.lease(1, 5)
    await lease.dead_letter("Broken", "It broke.")
    await once.resubmit(message.message_id)
    (again,) = await once.lease(1, 5)
    assert (again.message_id, again.delivery_count) == (message.message_id, 1)
    assert dict(again.properties) == dict(message.properties)


async def test_a_second_send_within_the_window_is_dropped(once: ServiceBusJobQueue) -> None:
    message = make_message()
    await once.send(message)
    await once.send(message)
    assert (await once.depth()).active == 1


async def test_taking_one_dead_letter_frees_the_others_at_once(
    pair: tuple[ServiceBusJobQueue, ServiceBusJobQueue],
) -> None:
    queue, other = pair
    messages = [make_message() for _ in range(5)]
    for message in messages:
        await queue.send(message)
    for lease in await queue.lease(5, 5):
        await lease.dead_letter("Broken", "It broke.")
    ids = [message.message_id for message in messages]
    await queue.discard(ids[3])
    await other.discard(ids[4])
    await other.discard(ids[0])
    assert [dead.message_id for dead in await queue.dead_letters()] == ids[1:3]


async def test_operators_see_our_words_on_the_message(bus: Bus, once: ServiceBusJobQueue) -> None:
    assert bus.emulator is not None
    message = make_message(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    await once.send(message)
    connection = bus.emulator.endpoints.connection_string
    async with (
        ServiceBusClient.from_connection_string(connection) as client,
        client.get_queue_receiver("once") as receiver,
    ):
        (seen,) = await receiver.peek_messages()
    named = {
        key.decode() if isinstance(key, bytes) else key: value.decode()
        for key, value in (seen.application_properties or {}).items()
        if isinstance(value, bytes)
    }
    assert seen.message_id == message.job_id
    assert seen.subject == message.model
    assert seen.content_type == "application/json"
    assert named == {
        "model": message.model,
        "tenant": message.tenant,
        "pool": message.pool,
        "traceparent": message.traceparent,
    }


async def test_sends_at_one_time_all_arrive(bus: Bus) -> None:
    queue = bus.open_queue()
    messages = [make_message() for _ in range(250)]
    await asyncio.gather(*(queue.send(message) for message in messages))
    seen: set[str] = set()
    while leases := await queue.lease(100, 0.3):
        seen |= {lease.message_id for lease in leases}
        await asyncio.gather(*(lease.complete() for lease in leases))
    assert seen == {message.message_id for message in messages}
    await queue.close()


async def test_a_queue_that_does_not_exist_is_unavailable(bus: Bus) -> None:
    queue = bus.open_queue("nothing")
    for call in (queue.send(make_message()), queue.lease(1, 0.1), queue.depth()):
        with pytest.raises(QueueUnavailable) as refused:
            await call
        assert "SAS_KEY_VALUE" not in str(refused.value)
    await queue.close()


async def test_after_closing_the_errors_are_ours(bus: Bus) -> None:
    queue = bus.open_queue()
    await queue.send(make_message())
    (lease,) = await queue.lease(1, 5)
    waiting = asyncio.create_task(queue.lease(1, 30))
    await asyncio.sleep(0.05)
    await queue.close()
    assert await waiting == []
    with pytest.raises(QueueUnavailable):
        await lease.complete()


@pytest.mark.parametrize("connection", ["Endpoint=sb://acme.servicebus.windows.net", "x", ""])
def test_a_connection_string_to_elsewhere_is_refused(connection: str) -> None:
    with pytest.raises(SettingsError) as refused:
        emulated_service_bus(f"{connection};SharedAccessKeyName=n;SharedAccessKey=hush")
    assert "hush" not in refused.value.message


@pytest.mark.parametrize(
    ("raised", "ours"),
    [
        (MessageLockLostError(), LeaseLost),
        (MessageAlreadySettled(action="complete"), LeaseLost),
        (ServiceBusServerBusyError(message="sig=hush"), QueueUnavailable),
        (ServiceBusAuthenticationError(message="sig=hush"), QueueUnavailable),
        (HttpResponseError("sig=hush"), QueueUnavailable),
        (ClientAuthenticationError("sig=hush"), QueueUnavailable),
        (TimeoutError("sig=hush"), QueueUnavailable),
        (MessageSizeExceededError(message="sig=hush"), InvalidInput),
    ],
)
def test_vendors_errors_become_ours_without_their_words(
    raised: Exception, ours: type[DarkroomError]
) -> None:
    with pytest.raises(ours) as translated, queue_errors("sending a message"):
        raise raised
    assert "hush" not in str(translated.value)
    assert str(translated.value).startswith("sending a message: ")
    assert translated.value.__cause__ is None
    assert translated.value.__suppress_context__
