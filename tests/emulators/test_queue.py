import uuid
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from emulators.service_bus.codec import Described, ULong, encode
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.message import PROPERTIES, Message, parse
from emulators.service_bus.queue import Entry, LockLostError, MessageNotFoundError, Queue
from emulators.service_bus.sequence_index import SequenceIndex
from emulators.service_bus.store import MemoryStore

LOCK_MS = 30_000
SETTINGS = QueueSettings(lock_duration_ms=LOCK_MS, max_delivery_count=3, dead_letter_expired=True)


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def message(name: str, ttl_ms: int | None = None) -> Message:
    return replace(parse(encode(Described(ULong(PROPERTIES), [name]))), ttl_ms=ttl_ms)


def make(settings: QueueSettings = SETTINGS) -> tuple[Queue, Queue, Clock]:
    clock = Clock()
    buried = Queue("q/$DeadLetterQueue", settings, clock, MemoryStore())
    return Queue("q", settings, clock, MemoryStore(), dead_letter=buried), buried, clock


def names(entries: Iterable[Entry]) -> list[str]:
    return [entry.message.message_id for entry in entries]


def leased(queue: Queue) -> Entry:
    entry = queue.lease()
    assert entry is not None
    return entry


def token(entry: Entry) -> uuid.UUID:
    assert entry.lock_token is not None
    return entry.lock_token


def test_messages_are_leased_in_the_order_they_came() -> None:
    queue, _, _ = make()
    for name in "abc":
        queue.send(message(name))
    assert names(leased(queue) for _ in range(3)) == ["a", "b", "c"]
    assert queue.lease() is None


def test_a_completed_message_is_gone_and_its_lock_with_it() -> None:
    queue, _, _ = make()
    queue.send(message("a"))
    lock = token(leased(queue))
    queue.complete(lock)
    assert queue.counts().active == 0
    with pytest.raises(LockLostError):
        queue.complete(lock)


def test_an_abandoned_message_comes_back_before_younger_ones_and_is_counted() -> None:
    queue, _, _ = make()
    queue.send(message("a"))
    queue.send(message("b"))
    queue.abandon(token(leased(queue)))
    again = leased(queue)
    assert (again.message.message_id, again.delivery_count) == ("a", 1)


def test_a_released_message_comes_back_uncounted() -> None:
    queue, _, _ = make()
    queue.send(message("a"))
    for _ in range(10):
        queue.release(token(leased(queue)))
    assert leased(queue).delivery_count == 0


def test_a_lock_that_is_not_renewed_expires_and_counts() -> None:
    queue, _, clock = make()
    queue.send(message("a"))
    lock = token(leased(queue))
    clock.now_ms += LOCK_MS - 1
    assert queue.holds(lock)
    clock.now_ms += 1
    with pytest.raises(LockLostError):
        queue.complete(lock)
    assert leased(queue).delivery_count == 1


def test_a_renewed_lock_lives_on_from_the_renewal() -> None:
    queue, _, clock = make()
    queue.send(message("a"))
    lock = token(leased(queue))
    for _ in range(5):
        clock.now_ms += LOCK_MS - 1
        assert queue.renew(lock) == clock.now_ms + LOCK_MS
    queue.complete(lock)
    clock.now_ms += 10 * LOCK_MS
    assert queue.counts().active == 0
    with pytest.raises(LockLostError):
        queue.renew(lock)


def test_the_delivery_that_reaches_the_limit_is_dead_lettered_with_the_reason() -> None:
    queue, buried, clock = make()
    queue.send(message("a"))
    queue.abandon(token(leased(queue)))
    leased(queue)
    clock.now_ms += LOCK_MS
    queue.abandon(token(leased(queue)))
    assert queue.lease() is None
    dead = leased(buried)
    assert b"MaxDeliveryCountExceeded" in dead.message.bare
    assert (dead.delivery_count, dead.enqueue_sequence_number) == (3, 1)


def test_dead_letters_have_no_delivery_limit_and_never_expire() -> None:
    queue, buried, clock = make(replace(SETTINGS, default_ttl_ms=1000))
    queue.send(message("a"))
    queue.reject(token(leased(queue)), {"DeadLetterReason": "why"})
    for _ in range(20):
        clock.now_ms += 10_000
        buried.abandon(token(leased(buried)))
    assert leased(buried).delivery_count == 20


def test_a_deferred_message_is_had_by_its_number_only() -> None:
    queue, _, clock = make()
    number = queue.send(message("a"))
    queue.defer(token(leased(queue)))
    assert queue.lease() is None
    (entry,) = queue.receive_deferred([number])
    with pytest.raises(MessageNotFoundError):
        queue.receive_deferred([number])
    clock.now_ms += LOCK_MS
    assert queue.lease() is None
    (entry,) = queue.receive_deferred([number])
    assert entry.delivery_count == 1
    queue.complete(token(entry))
    with pytest.raises(MessageNotFoundError):
        queue.receive_deferred([number])


def test_a_scheduled_message_comes_when_due_under_a_new_number() -> None:
    queue, _, clock = make()
    due_ms = clock.now_ms + 60_000
    number = queue.send(message("a"), due_ms)
    assert queue.counts().scheduled == 1
    assert queue.lease() is None
    assert queue.next_event_ms() == due_ms
    clock.now_ms = due_ms + 5
    entry = leased(queue)
    assert entry.sequence_number > number
    assert entry.enqueued_ms == due_ms
    assert queue.counts().scheduled == 0
    with pytest.raises(MessageNotFoundError):
        queue.cancel_scheduled([number])


def test_cancelling_drops_all_that_were_named_or_none() -> None:
    queue, _, clock = make()
    first, second = (queue.send(message(n), clock.now_ms + 60_000) for n in "ab")
    with pytest.raises(MessageNotFoundError):
        queue.cancel_scheduled([first, 999])
    assert queue.counts().scheduled == 2
    queue.cancel_scheduled([first, second])
    clock.now_ms += 120_000
    assert queue.lease() is None


def test_an_expired_message_is_dead_lettered_or_dropped_as_the_queue_says() -> None:
    for keep in (True, False):
        queue, buried, clock = make(replace(SETTINGS, dead_letter_expired=keep))
        queue.send(message("a", ttl_ms=1000))
        clock.now_ms += 1000
        assert queue.lease() is None
        dead = buried.lease()
        assert (dead is not None) == keep
        if dead is not None:
            assert b"TTLExpiredException" in dead.message.bare


def test_the_queues_time_to_live_is_a_ceiling() -> None:
    queue, _, clock = make(replace(SETTINGS, default_ttl_ms=2000))
    queue.send(message("long", ttl_ms=10_000))
    queue.send(message("unset"))
    queue.send(message("short", ttl_ms=1000))
    clock.now_ms += 1000
    assert names(queue.peek(1, 10)) == ["long", "unset"]
    clock.now_ms += 1000
    assert queue.peek(1, 10) == []


def test_expiry_waits_for_the_lock() -> None:
    queue, buried, clock = make()
    queue.send(message("a", ttl_ms=1000))
    queue.send(message("b", ttl_ms=1000))
    first, second = leased(queue), leased(queue)
    clock.now_ms += 5000
    queue.complete(token(first))
    queue.release(token(second))
    assert queue.lease() is None
    assert names(buried.peek(1, 9)) == ["b"]


def test_a_duplicate_is_dropped_within_the_window_only() -> None:
    queue, _, clock = make(
        replace(SETTINGS, requires_duplicate_detection=True, duplicate_window_ms=20_000)
    )
    assert queue.send(message("a")) == 1
    queue.complete(token(leased(queue)))
    clock.now_ms += 19_999
    assert queue.send(message("a")) == 0
    assert queue.counts().active == 0
    clock.now_ms += 1
    assert queue.send(message("a")) == 2


def test_receive_and_delete_takes_at_once() -> None:
    queue, _, _ = make()
    queue.send(message("a"))
    entry = queue.lease(remove=True)
    assert entry is not None
    assert entry.lock_token is None
    assert queue.counts().active == 0


def test_active_counts_include_locked_and_deferred_messages() -> None:
    queue, _, clock = make()
    for name in "abc":
        queue.send(message(name))
    queue.send(message("later"), clock.now_ms + 1000)
    queue.defer(token(leased(queue)))
    leased(queue)
    counts = queue.counts()
    assert (counts.active, counts.scheduled, counts.dead_lettered) == (3, 1, 0)


def test_memory_of_what_is_gone_is_given_back() -> None:
    queue, _, _ = make(replace(SETTINGS, default_ttl_ms=3_600_000))
    for number in range(6_000):
        queue.send(message(str(number)))
        queue.complete(token(leased(queue)))
    held = (queue._ready, queue._lock_ends, queue._expiries)
    assert all(len(heap) < 3000 for heap in held)


def test_the_index_finds_the_next_number_across_gaps() -> None:
    index = SequenceIndex()
    for number in range(1, 2001):
        index.add(number)
    for number in range(100, 1900):
        index.remove(number)
    index.add(1000)
    assert list(index.from_number(98)) == [98, 99, 1000, *range(1900, 2001)]
    assert list(index.from_number(2001)) == []
    with pytest.raises(KeyError):
        index.remove(500)


class QueueMachine(RuleBasedStateMachine):
    """Any order of operations: no message is lost, doubled, or leased to two at once."""

    locks = Bundle("locks")
    deferred = Bundle("deferred")
    scheduled = Bundle("scheduled")

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.buried, self.clock = make(replace(SETTINGS, max_delivery_count=4))
        self.sent = 0
        self.alive: set[str] = set()
        self.held: dict[uuid.UUID, tuple[str, int]] = {}
        self.last_number = 0

    def held_now(self) -> set[str]:
        return {name for name, until in self.held.values() if until > self.clock.now_ms}

    @rule(ttl_ms=st.sampled_from([None, None, 1000, 50_000]))
    def send(self, ttl_ms: int | None) -> None:
        self.new(message(f"m{self.sent}", ttl_ms), None)

    @rule(target=scheduled, delay_ms=st.integers(1, 100_000))
    def schedule(self, delay_ms: int) -> int:
        return self.new(message(f"m{self.sent}"), self.clock.now_ms + delay_ms)

    def new(self, what: Message, due_ms: int | None) -> int:
        number = self.queue.send(what, due_ms)
        assert number > self.last_number
        self.last_number = number
        self.sent += 1
        self.alive.add(what.message_id)
        return number

    @rule(target=locks, from_dead_letters=st.booleans())
    def lease(self, from_dead_letters: bool) -> object:
        source = self.buried if from_dead_letters else self.queue
        entry = source.lease()
        if entry is None:
            return multiple()
        assert entry.message.message_id not in self.held_now()
        self.held[token(entry)] = (entry.message.message_id, entry.locked_until_ms)
        return (source, token(entry), entry)

    @rule(target=deferred, lock=consumes(locks), how=st.sampled_from("carjdn"))
    def settle(self, lock: tuple[Queue, uuid.UUID, Entry], how: str) -> object:
        source, held_token, entry = lock
        name, until_ms = self.held[held_token]
        act = {
            "c": source.complete,
            "a": source.abandon,
            "r": source.release,
            "j": lambda t: source.reject(t, {"DeadLetterReason": "x"}),
            "d": source.defer,
            "n": source.renew,
        }[how]
        if until_ms <= self.clock.now_ms:
            with pytest.raises(LockLostError):
                act(held_token)
            return multiple()
        renewed = act(held_token)
        if how == "n":
            assert isinstance(renewed, int)
            self.held[held_token] = (name, renewed)
            return multiple()
        del self.held[held_token]
        if how == "c":
            self.alive.discard(name)
        return (source, entry.sequence_number) if how == "d" else multiple()

    @rule(target=locks, one=deferred)
    def receive_deferred(self, one: tuple[Queue, int]) -> object:
        source, number = one
        try:
            (entry,) = source.receive_deferred([number])
        except MessageNotFoundError:
            return multiple()
        assert entry.message.message_id not in self.held_now()
        self.held[token(entry)] = (entry.message.message_id, entry.locked_until_ms)
        return (source, token(entry), entry)

    @rule(number=scheduled)
    def cancel(self, number: int) -> None:
        found = {entry.sequence_number: entry for entry in self.queue.peek(number, 1)}
        try:
            self.queue.cancel_scheduled([number])
        except MessageNotFoundError:
            return
        self.alive.discard(found[number].message.message_id)

    @rule(step_ms=st.integers(1, 70_000))
    def wait(self, step_ms: int) -> None:
        self.clock.now_ms += step_ms

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        here, dead = self.queue.peek(0, 10_000), self.buried.peek(0, 10_000)
        assert sorted(names(here) + names(dead)) == sorted(self.alive)
        counts = self.queue.counts()
        assert counts.active + counts.scheduled == len(here)
        assert counts.dead_lettered == len(dead)
        assert counts.size_bytes == sum(len(entry.message.bare) for entry in here)
        numbers = [entry.sequence_number for entry in here]
        assert numbers == sorted(set(numbers))
        self.last_number = max([self.last_number, *numbers])

    @invariant()
    def locks_are_exactly_those_given_and_not_expired(self) -> None:
        both = [*self.queue.peek(0, 10_000), *self.buried.peek(0, 10_000)]
        assert {entry.message.message_id for entry in both if entry.lock_token} == self.held_now()
        assert all(entry.delivery_count < 4 for entry in self.queue.peek(0, 10_000))


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
