"""The unmodified async SDK against the emulator: what a program on Azure relies on."""

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import (
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusConnectionError,
    ServiceBusError,
)

from emulators.service_bus.cbs import JwtPolicy
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.server import Options
from emulators.tokens import LocalCredential

from .conftest import Bench, BenchMaker

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT = 5
DEAD = {"sub_queue": ServiceBusSubQueue.DEAD_LETTER}


def message(body: str | bytes, **options: object) -> ServiceBusMessage:
    return ServiceBusMessage(body, **options)


def messages(bodies: str) -> list[ServiceBusMessage]:
    return [message(body) for body in bodies.split()]


async def one(receiver: ServiceBusReceiver) -> ServiceBusReceivedMessage:
    (found,) = await receiver.receive_messages(max_message_count=1, max_wait_time=WAIT)
    return found


async def several(receiver: ServiceBusReceiver, count: int) -> list[ServiceBusReceivedMessage]:
    found: list[ServiceBusReceivedMessage] = []
    while len(found) < count:
        page = await receiver.receive_messages(count - len(found), max_wait_time=WAIT)
        assert page, f"{count} messages were expected, {len(found)} came"
        found += page
    return found


async def test_a_message_arrives_as_it_was_sent(bus: Bench) -> None:
    sent = message(
        b"\x00body",
        application_properties={"model": "demo", "steps": 4, "scale": 7.5, "fast": True},
        message_id="job-1",
        correlation_id="c",
        subject="s",
        content_type="application/json",
        reply_to="r",
        partition_key="p",
        time_to_live=timedelta(hours=1),
    )
    await bus.send(sent)
    async with bus.receiver() as receiver:
        got = await one(receiver)
        assert b"".join(got.body) == b"\x00body"
        assert got.application_properties == {
            b"model": b"demo",
            b"steps": 4,
            b"scale": 7.5,
            b"fast": True,
        }
        assert (got.message_id, got.correlation_id, got.subject) == ("job-1", "c", "s")
        assert (got.content_type, got.reply_to) == ("application/json", "r")
        assert (got.partition_key, got.time_to_live) == ("p", timedelta(hours=1))
        assert (got.sequence_number, got.delivery_count) == (1, 0)
        assert got.state == ServiceBusMessageState.ACTIVE
        assert got.locked_until_utc - got.enqueued_time_utc >= timedelta(seconds=30)
        await receiver.complete_message(got)
    assert bus.counts() == (0, 0, 0)


async def test_a_batch_is_taken_whole_and_in_order(bus: Bench) -> None:
    async with bus.sender() as sender:
        batch = await sender.create_message_batch()
        assert batch.max_size_in_bytes == 262_144
        for number in range(20):
            batch.add_message(message(str(number)))
        await sender.send_messages(batch)
        await sender.send_messages(messages("20 21"))
    async with bus.receiver(
        receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, prefetch_count=30
    ) as receiver:
        got = await several(receiver, 22)
    assert [str(m) for m in got] == [str(number) for number in range(22)]
    assert bus.counts() == (0, 0, 0)


async def test_settling_in_each_way_ends_where_it_should(bus: Bench) -> None:
    bus.put(*["complete", "abandon", "bury", "defer"])
    async with bus.receiver(retry_total=0) as receiver:
        got = {str(m): m for m in await several(receiver, 4)}
        assert bus.counts() == (4, 0, 0)
        await receiver.complete_message(got["complete"])
        await receiver.abandon_message(got["abandon"])
        await receiver.dead_letter_message(
            got["bury"], reason="Poison", error_description="it broke"
        )
        await receiver.defer_message(got["defer"])
        assert bus.counts() == (2, 0, 1)
        again = await one(receiver)
        assert (str(again), again.delivery_count) == ("abandon", 1)
        number = got["defer"].sequence_number
        (deferred,) = await receiver.receive_deferred_messages(number)
        assert deferred.state == ServiceBusMessageState.DEFERRED
        await receiver.renew_message_lock(deferred)
        await receiver.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            await receiver.receive_deferred_messages(number)
    async with bus.receiver(**DEAD) as dead:
        buried = await one(dead)
        assert str(buried) == "bury"
        assert buried.dead_letter_reason == "Poison"
        assert buried.dead_letter_error_description == "it broke"
        await dead.complete_message(buried)
    assert bus.counts() == (1, 0, 0)


async def test_a_deferred_message_can_be_settled_in_each_way(bus: Bench) -> None:
    bus.put(*["abandon", "bury", "defer"])
    async with bus.receiver(retry_total=0) as receiver:
        numbers = []
        for waiting in await several(receiver, 3):
            numbers.append(waiting.sequence_number)
            await receiver.defer_message(waiting)
        abandon, bury, defer = await receiver.receive_deferred_messages(numbers)
        await receiver.abandon_message(abandon)
        await receiver.dead_letter_message(bury, reason="r", error_description="d")
        await receiver.defer_message(defer)
        (again,) = await receiver.receive_deferred_messages(abandon.sequence_number)
        assert again.delivery_count == 1
        with pytest.raises(MessageNotFoundError):
            await receiver.receive_deferred_messages(bury.sequence_number)
    assert bus.counts() == (2, 0, 1)


async def test_a_scheduled_message_waits_and_can_be_cancelled(bus: Bench) -> None:
    later = datetime.now(UTC) + timedelta(seconds=bus.clock.ahead_ms / 1000 + 600)
    async with bus.sender(retry_total=0) as sender, bus.receiver() as receiver:
        first, second = await sender.schedule_messages(messages("a b"), later)
        await sender.send_messages(message("c", scheduled_enqueue_time_utc=later))
        assert bus.counts() == (0, 3, 0)
        await sender.cancel_scheduled_messages(first)
        with pytest.raises(MessageNotFoundError):
            await sender.cancel_scheduled_messages([first, second])
        waiting = await receiver.peek_messages(9)
        assert [m.state for m in waiting] == [ServiceBusMessageState.SCHEDULED] * 2
        bus.pass_time(601)
        got = await several(receiver, 2)
        assert {str(m) for m in got} == {"b", "c"}
        assert all(m.sequence_number > second for m in got)


async def test_peeking_sees_everything_and_takes_nothing(bus: Bench) -> None:
    bus.put(*["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"])
    async with bus.receiver() as receiver:
        await one(receiver)
        pages = await receiver.peek_messages(6, sequence_number=1)
        pages += await receiver.peek_messages(6)
        assert [str(m) for m in pages] == [str(n) for n in range(10)]
        assert await receiver.peek_messages(6) == []
        assert bus.counts() == (10, 0, 0)


async def test_a_renewed_lock_outlives_its_first_end(bus: Bench) -> None:
    bus.put("a")
    async with bus.receiver() as receiver:
        held = await one(receiver)
        bus.pass_time(25)
        assert await receiver.renew_message_lock(held) == held.locked_until_utc
        bus.pass_time(25)
        await receiver.complete_message(held)
    assert bus.counts() == (0, 0, 0)


async def test_the_auto_renewer_keeps_a_lock(make_bench: BenchMaker) -> None:
    async with make_bench() as bus, AutoLockRenewer() as renewer, bus.receiver() as receiver:
        bus.broker.create_queue(bus.name("jobs"), QueueSettings(lock_duration_ms=5000))
        bus.put("a")
        held = await one(receiver)
        first = held.locked_until_utc
        renewer.register(receiver, held, max_lock_renewal_duration=60)
        async with asyncio.timeout(10):
            while held.locked_until_utc == first:
                await asyncio.sleep(0.05)
        await receiver.complete_message(held)


async def test_an_expired_lock_is_lost_to_the_next_receiver(bus: Bench) -> None:
    bus.put("a")
    async with bus.receiver(retry_total=0) as slow, bus.receiver() as quick:
        stale = await one(slow)
        bus.pass_time(31)
        fresh = await one(quick)
        assert fresh.delivery_count == 1
        for settle in (slow.complete_message, slow.abandon_message, slow.defer_message):
            with pytest.raises(MessageLockLostError):
                await settle(stale)
        with pytest.raises(MessageLockLostError):
            await slow.dead_letter_message(stale, reason="late")
        with pytest.raises(MessageLockLostError):
            await slow.renew_message_lock(stale)
        await quick.complete_message(fresh)
    assert bus.counts() == (0, 0, 0)


async def test_a_message_that_fails_too_often_is_dead_lettered(bus: Bench) -> None:
    bus.put("a")
    async with bus.receiver() as receiver, bus.receiver(**DEAD) as dead:
        for attempt in range(3):
            failing = await one(receiver)
            assert failing.delivery_count == attempt
            await receiver.abandon_message(failing)
        (seen,) = await dead.peek_messages(9)
        assert seen.dead_letter_reason == "MaxDeliveryCountExceeded"
        assert seen.delivery_count == 3
        assert seen.enqueued_sequence_number == failing.sequence_number


async def test_a_closing_receiver_gives_its_prefetched_messages_back_uncounted(bus: Bench) -> None:
    bus.put(*["a", "b", "c", "d", "e"])
    async with bus.receiver(prefetch_count=10) as receiver:
        await receiver.complete_message(await one(receiver))
        await receiver.close()
    async with bus.receiver() as receiver:
        rest = await several(receiver, 4)
        assert [(str(m), m.delivery_count) for m in rest] == [(n, 0) for n in "bcde"]


async def test_a_duplicate_is_dropped_within_the_window(bus: Bench) -> None:
    async with bus.sender("once") as sender:
        await sender.send_messages(message("a", message_id="same"))
        await sender.send_messages(message("b", message_id="same"))
        assert bus.counts("once") == (1, 0, 0)
        bus.pass_time(21)
        await sender.send_messages(message("c", message_id="same"))
        assert bus.counts("once") == (2, 0, 0)


async def test_an_expired_message_is_dead_lettered_with_the_reason(bus: Bench) -> None:
    await bus.send(message("a", time_to_live=timedelta(seconds=30)), queue="brief")
    bus.pass_time(31)
    assert bus.counts("brief") == (0, 0, 1)
    async with bus.receiver("brief", **DEAD) as dead:
        assert (await one(dead)).dead_letter_reason == "TTLExpiredException"


async def test_an_oversized_message_is_refused_and_the_sender_goes_on(bus: Bench) -> None:
    async with bus.sender() as sender, bus.receiver() as receiver:
        with pytest.raises(MessageSizeExceededError):
            await sender.send_messages(message(b"x" * 300_000))
        await sender.send_messages(message(b"x" * 250_000))
        assert len(b"".join((await one(receiver)).body)) == 250_000


async def test_a_queue_that_is_not_there_is_not_found(bus: Bench) -> None:
    with pytest.raises(MessagingEntityNotFoundError):
        await bus.send(message("a"), queue="nowhere")
    with pytest.raises(MessagingEntityNotFoundError):
        async with bus.receiver("nowhere") as receiver:
            await receiver.receive_messages(1, max_wait_time=1)


async def test_deleting_a_queue_ends_its_links(bus: Bench) -> None:
    async with bus.sender(retry_backoff_factor=0.1) as sender:
        await sender.send_messages(message("a"))
        assert bus.broker.delete_queue(bus.name("jobs").upper())
        with pytest.raises(MessagingEntityNotFoundError):
            await sender.send_messages(message("b"))


async def test_a_wrong_key_is_refused(bus: Bench) -> None:
    bad = bus.endpoints.connection_string.replace("SAS_KEY_VALUE", "not-the-key")
    client = ServiceBusClient.from_connection_string(bad, retry_total=0)
    with pytest.raises(ServiceBusAuthenticationError):
        async with bus.sender(client=client) as sender:
            await sender.send_messages(message("a"))


@pytest.mark.parametrize(
    ("audience", "welcome"),
    [("https://servicebus.azure.net", True), ("https://storage.azure.com", False)],
)
async def test_an_entra_token_opens_the_bus_only_if_it_is_for_the_bus(
    make_bench: BenchMaker, audience: str, welcome: bool
) -> None:
    async with make_bench(Options(jwt=JwtPolicy(audience))) as bus:
        address = f"127.0.0.1:{bus.endpoints.amqp_port}"
        client = ServiceBusClient(address, LocalCredential(), use_tls=False, retry_total=0)
        with nullcontext() if welcome else pytest.raises(ServiceBusAuthenticationError):
            async with bus.sender(client=client) as sender:
                await sender.send_messages(message("a"))


async def test_sessions_are_refused_clearly(bus: Bench) -> None:
    with pytest.raises(ServiceBusError, match="no sessions"):
        async with bus.receiver(session_id="s", retry_total=0) as receiver:
            await receiver.receive_messages(1, max_wait_time=1)


async def test_waiting_receivers_share_what_comes(bus: Bench) -> None:
    async with bus.receiver() as left, bus.receiver() as right, bus.sender() as sender:
        waiting = [
            asyncio.create_task(receiver.receive_messages(1, max_wait_time=20))
            for receiver in (left, right)
        ]
        outlet = bus.broker.outlet(bus.name("jobs"))
        async with asyncio.timeout(10):
            while sum(link.credit for link in outlet.links) < 2:
                await asyncio.sleep(0.01)
        await sender.send_messages(messages("a b"))
        got = await asyncio.gather(*waiting)
        assert sorted(str(m) for page in got for m in page) == ["a", "b"]


async def test_many_settlements_at_once_on_one_receiver_are_safe(bus: Bench) -> None:
    bus.put(*map(str, range(100)))
    async with bus.receiver(prefetch_count=50) as receiver:
        done = 0
        while done < 100:
            page = await receiver.receive_messages(50, max_wait_time=WAIT)
            await asyncio.gather(*(receiver.complete_message(m) for m in page))
            done += len(page)
    assert bus.counts() == (0, 0, 0)


async def test_a_cut_connection_is_made_anew_by_the_sdk(make_bench: BenchMaker) -> None:
    async with make_bench() as bus, bus.sender(retry_backoff_factor=0.1) as sender:
        await sender.send_messages(message("a"))
        for connection in list(bus.broker.connections):
            connection.close()
        await sender.send_messages(message("b"))
        assert bus.counts() == (2, 0, 0)


async def test_a_stopped_broker_is_a_connection_error(make_bench: BenchMaker) -> None:
    async with make_bench() as bus:
        client = bus.client(retry_total=0)
    async with client:
        with pytest.raises(ServiceBusConnectionError):
            async with client.get_queue_sender("jobs") as sender:
                await sender.send_messages(message("a"))
