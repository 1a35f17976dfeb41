"""What `darkroom.queues.base` promises, asked of every adapter."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest

from darkroom.errors import DeadLetterNotFound, LeaseLost
from darkroom.messages import JobMessage, decode
from darkroom.queues.base import MAX_DELIVERY_COUNT_EXCEEDED, JobQueue, Lease, QueueDepth
from tests.contracts.adapters import Queues
from tests.samples import make_message


async def take(queues: Queues, most: int = 1, queue: JobQueue | None = None) -> Sequence[Lease]:
    return await (queue or queues.queue).lease(most, queues.wait_seconds)


async def take_one(queues: Queues) -> Lease:
    (lease,) = await take(queues)
    return lease


async def take_again(queues: Queues, queue: JobQueue | None = None) -> Lease:
    """Take what an earlier delivery gave back or lost."""
    if queues.back_off_seconds:
        await queues.advance(queues.back_off_seconds)
    (lease,) = await take(queues, queue=queue)
    return lease


async def send_many(queues: Queues, count: int) -> list[str]:
    messages = [make_message() for _ in range(count)]
    await asyncio.gather(*(queues.queue.send(message) for message in messages))
    return [message.message_id for message in messages]


async def fail_until_dead(queues: Queues, message: JobMessage) -> None:
    await queues.queue.send(message)
    for _ in range(queues.max_delivery_count):
        await (await take_again(queues)).abandon()


async def test_a_message_arrives_as_it_was_sent(queues: Queues) -> None:
    message = make_message(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    await queues.queue.send(message)
    lease = await take_one(queues)
    assert decode(lease.body) == message
    assert dict(lease.properties) == dict(message.properties)
    assert lease.message_id == message.job_id
    assert lease.delivery_count == 1
    assert lease.expires_at > queues.now()


async def test_messages_come_oldest_first(queues: Queues) -> None:
    messages = [make_message() for _ in range(5)]
    for message in messages:
        await queues.queue.send(message)
    leases = await take(queues, 5)
    assert [lease.message_id for lease in leases] == [m.message_id for m in messages]


async def test_no_more_messages_come_than_were_asked_for(queues: Queues) -> None:
    await send_many(queues, 5)
    assert len(await take(queues, 3)) == 3
    assert len(await take(queues, 3)) == 2


async def test_an_empty_queue_gives_nothing_in_time(queues: Queues) -> None:
    began = time.monotonic()
    assert await queues.queue.lease(1, 0.1) == []
    assert 0.05 < time.monotonic() - began < 5


async def test_a_waiting_consumer_gets_what_is_sent_meanwhile(queues: Queues) -> None:
    waiting = asyncio.create_task(queues.queue.lease(10, 30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await queues.other.send(make_message())
    (lease,) = await asyncio.wait_for(waiting, 5)
    await lease.complete()


async def test_a_leased_message_is_hidden_from_others(queues: Queues) -> None:
    await queues.queue.send(make_message())
    await take_one(queues)
    assert await take(queues, queue=queues.other) == []
    assert await take(queues) == []


async def test_a_completed_message_never_comes_back(queues: Queues) -> None:
    await queues.queue.send(make_message())
    await (await take_one(queues)).complete()
    await queues.advance(queues.lease_seconds * 1.2)
    assert await take(queues) == []
    assert await queues.queue.depth() == QueueDepth(active=0, dead_lettered=0, scheduled=0)


async def test_a_lease_not_renewed_comes_back_counted(queues: Queues) -> None:
    await queues.queue.send(make_message())
    first = await take_one(queues)
    await queues.advance(queues.lease_seconds * 1.2)
    again = await take_again(queues, queues.other)
    assert (again.message_id, again.delivery_count) == (first.message_id, 2)


async def test_a_renewed_lease_is_kept_past_its_first_end(queues: Queues) -> None:
    await queues.queue.send(make_message())
    lease = await take_one(queues)
    first_end = lease.expires_at
    for _ in range(4):
        await queues.advance(queues.lease_seconds * 0.4)
        assert await lease.renew() == lease.expires_at
    assert lease.expires_at > first_end
    assert await take(queues, queue=queues.other) == []
    await lease.complete()


@pytest.mark.parametrize("step", ["renew", "complete", "abandon", "dead_letter"])
async def test_an_expired_lease_can_do_nothing(queues: Queues, step: str) -> None:
    await queues.queue.send(make_message())
    lease = await take_one(queues)
    await queues.advance(queues.lease_seconds * 1.2)
    with pytest.raises(LeaseLost):
        await settle(lease, step)
    assert (await take_again(queues)).delivery_count == 2


@pytest.mark.parametrize("second", ["renew", "complete", "abandon", "dead_letter"])
@pytest.mark.parametrize("first", ["complete", "abandon", "dead_letter"])
async def test_settling_twice_is_refused(queues: Queues, first: str, second: str) -> None:
    await queues.queue.send(make_message())
    lease = await take_one(queues)
    await settle(lease, first)
    with pytest.raises(LeaseLost):
        await settle(lease, second)


async def test_an_old_lease_cannot_settle_the_next_delivery(queues: Queues) -> None:
    await queues.queue.send(make_message())
    old = await take_one(queues)
    await old.abandon()
    new = await take_again(queues)
    with pytest.raises(LeaseLost):
        await old.complete()
    await new.complete()


async def test_an_abandoned_message_comes_back_at_once_and_counted(queues: Queues) -> None:
    await queues.queue.send(make_message())
    await (await take_one(queues)).abandon()
    assert (await take_again(queues)).delivery_count == 2


async def test_an_abandoned_message_can_be_put_off(queues: Queues) -> None:
    await queues.queue.send(make_message())
    await (await take_one(queues)).abandon(delay_seconds=queues.lease_seconds)
    assert await take(queues) == []
    assert (await queues.queue.depth()).scheduled == 1
    await queues.advance(queues.lease_seconds * 1.2)
    assert (await take_one(queues)).delivery_count == 2


async def test_preemption_does_not_count(queues: Queues) -> None:
    await queues.queue.send(make_message())
    for _ in range(queues.max_delivery_count + 2):
        lease = await take_again(queues)
        assert lease.delivery_count == 1
        await lease.abandon(counted=False)
    assert (await queues.queue.depth()).dead_lettered == 0


async def test_the_last_failed_delivery_dead_letters(queues: Queues) -> None:
    message = make_message()
    await fail_until_dead(queues, message)
    assert await take(queues) == []
    (dead,) = await queues.queue.dead_letters()
    assert dead.reason == MAX_DELIVERY_COUNT_EXCEEDED
    assert dead.delivery_count == queues.max_delivery_count
    assert (dead.message_id, dead.body) == (message.message_id, message.encode())
    assert await queues.queue.depth() == QueueDepth(active=0, dead_lettered=1, scheduled=0)


async def test_leases_that_run_out_dead_letter_too(queues: Queues) -> None:
    await queues.queue.send(make_message())
    for delivery in range(queues.max_delivery_count):
        assert (await take_again(queues)).delivery_count == delivery + 1
        await queues.advance(queues.lease_seconds * 1.2)
    assert await take(queues) == []
    (dead,) = await queues.queue.dead_letters()
    assert dead.reason == MAX_DELIVERY_COUNT_EXCEEDED


async def test_a_consumer_can_set_a_message_aside(queues: Queues) -> None:
    message = make_message()
    await queues.queue.send(message)
    await (await take_one(queues)).dead_letter("UnsafeContent", "The filter refused it.")
    (dead,) = await queues.queue.dead_letters()
    assert (dead.reason, dead.description) == ("UnsafeContent", "The filter refused it.")
    assert (dead.delivery_count, dead.body) == (1, message.encode())
    assert dict(dead.properties) == dict(message.properties)
    assert abs(dead.enqueued_at - queues.now()) < timedelta(minutes=5)
    assert await take(queues) == []


async def test_dead_letters_are_read_oldest_first_and_stay(queues: Queues) -> None:
    ids = []
    for index in range(3):
        message = make_message()
        ids.append(message.message_id)
        await queues.queue.send(message)
        await (await take_one(queues)).dead_letter("Broken", str(index))
    for _ in range(2):
        assert [dead.message_id for dead in await queues.queue.dead_letters()] == ids
    assert [dead.message_id for dead in await queues.queue.dead_letters(limit=2)] == ids[:2]


async def test_a_resubmitted_dead_letter_starts_anew(queues: Queues) -> None:
    message = make_message()
    await fail_until_dead(queues, message)
    await queues.queue.resubmit(message.message_id)
    lease = await take_one(queues)
    assert (lease.message_id, lease.delivery_count) == (message.message_id, 1)
    assert decode(lease.body) == message
    assert await queues.queue.dead_letters() == []


async def test_only_the_dead_letter_that_is_named_moves(queues: Queues) -> None:
    stays, goes = make_message(), make_message()
    await fail_until_dead(queues, stays)
    await fail_until_dead(queues, goes)
    await queues.queue.resubmit(goes.message_id)
    assert [dead.message_id for dead in await queues.queue.dead_letters()] == [stays.message_id]
    assert (await take_one(queues)).message_id == goes.message_id


async def test_a_discarded_dead_letter_is_gone(queues: Queues) -> None:
    message = make_message()
    await fail_until_dead(queues, message)
    await queues.queue.discard(message.message_id)
    assert await queues.queue.depth() == QueueDepth(active=0, dead_lettered=0, scheduled=0)
    with pytest.raises(DeadLetterNotFound):
        await queues.queue.discard(message.message_id)


async def test_a_dead_letter_that_is_none_is_refused(queues: Queues) -> None:
    message = make_message()
    await queues.queue.send(message)  # waits, and is no dead letter
    with pytest.raises(DeadLetterNotFound):
        await queues.queue.resubmit(message.message_id)
    assert (await queues.queue.depth()).active == 1


async def test_a_scheduled_message_is_hidden_until_its_time(queues: Queues) -> None:
    due = queues.now() + timedelta(seconds=queues.lease_seconds)
    await queues.queue.send(make_message(), not_before=due)
    assert await take(queues) == []
    assert await queues.queue.depth() == QueueDepth(active=0, dead_lettered=0, scheduled=1)
    await queues.advance(queues.lease_seconds * 1.2)
    assert (await take_one(queues)).delivery_count == 1


async def test_a_time_in_the_past_means_now(queues: Queues) -> None:
    await queues.queue.send(make_message(), not_before=queues.now() - timedelta(hours=1))
    await take_one(queues)


async def test_depth_counts_waiting_and_leased_alike(queues: Queues) -> None:
    await send_many(queues, 4)
    await take(queues, 1)
    assert await queues.other.depth() == QueueDepth(active=4, dead_lettered=0, scheduled=0)


async def test_a_message_sent_twice_is_done_when_each_delivery_is(queues: Queues) -> None:
    message = make_message()
    await queues.queue.send(message)
    await queues.queue.send(message)
    deliveries = 0
    while leases := await take(queues, 5):
        for lease in leases:
            deliveries += 1
            assert lease.message_id == message.message_id
            await lease.complete()
    assert deliveries in {1, 2}


async def test_two_consumers_share_thousands_without_holding_one_twice(queues: Queues) -> None:
    ids = await send_many(queues, queues.many)
    done: list[str] = []

    async def consume(queue: JobQueue) -> None:
        while leases := await take(queues, 16, queue):
            done.extend(lease.message_id for lease in leases)
            await asyncio.gather(*(lease.complete() for lease in leases))

    await asyncio.gather(*(consume(q) for q in (queues.queue, queues.other) * 2))
    assert len(done) == len(set(done))
    assert set(done) == set(ids)
    assert (await queues.queue.depth()).active == 0


async def settle(lease: Lease, step: str) -> None:
    if step == "dead_letter":
        await lease.dead_letter("Broken", "It broke.")
    else:
        await getattr(lease, step)()
