"""One queue's state machine: what is ready, locked, deferred, scheduled, expired, dead-lettered.

Pure: no I/O, no event loop, and the clock is passed in, so that tests jump over lock expiry. Every
operation first applies what the clock made due. Costs are O(log n) in the messages held, peeking
included; 100,000 waiting messages make nothing slower.

Semantics follow Azure's documentation: a lock that expires or an abandoned message counts as a
failed delivery, and the delivery that makes the count reach `max_delivery_count` is dead-lettered
instead; released messages count nothing; expiry never touches locked or deferred messages and
takes effect when they come back; dead letters never expire and have no delivery limit.
"""

import heapq
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from emulators.service_bus.config import FOREVER_MS, QueueSettings
from emulators.service_bus.message import (
    DeliveryFacts,
    Message,
    encode_delivery,
    with_application_properties,
)
from emulators.service_bus.sequence_index import SequenceIndex

DEAD_LETTER_SUFFIX: Final = "/$DeadLetterQueue"
ACTIVE, DEFERRED, SCHEDULED = 0, 1, 2
_SLACK: Final = 1024


class QueueError(Exception):
    """An operation that the queue refuses; `condition` is AMQP's word and `status` HTTP's."""

    condition = "amqp:internal-error"
    status = 500


class LockLostError(QueueError):
    """The lock token is unknown: expired, settled, or never given."""

    condition = "com.microsoft:message-lock-lost"
    status = 410


class MessageNotFoundError(QueueError):
    """No such deferred or scheduled message."""

    condition = "com.microsoft:message-not-found"
    status = 404


@dataclass(slots=True)
class Entry:
    """A message in a queue; times in milliseconds. `due_ms` is set while it is scheduled."""

    sequence_number: int
    message: Message
    enqueued_ms: int
    expires_ms: int | None = None
    due_ms: int | None = None
    delivery_count: int = 0
    deferred: bool = False
    enqueue_sequence_number: int | None = None
    lock_token: uuid.UUID | None = None
    locked_until_ms: int = 0

    @property
    def state(self) -> int:
        """0 active, 1 deferred, 2 scheduled."""
        return SCHEDULED if self.due_ms is not None else DEFERRED if self.deferred else ACTIVE

    def encoded(self, *, peeked: bool = False) -> bytes:
        """The message as it is handed out now; a peeked one says nothing of its lock."""
        token = None if peeked else self.lock_token
        return encode_delivery(
            self.message,
            DeliveryFacts(
                sequence_number=self.sequence_number,
                enqueued_ms=self.enqueued_ms,
                delivery_count=self.delivery_count,
                state=self.state,
                lock_token=token,
                locked_until_ms=self.locked_until_ms if token else None,
                enqueue_sequence_number=self.enqueue_sequence_number,
            ),
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages held: `active` includes locked and deferred ones, as Azure's CountDetails do."""

    active: int
    scheduled: int
    dead_lettered: int
    size_bytes: int


class Journal(Protocol):
    """Where a queue's changes go to be kept; they take effect at the store's next commit."""

    def put(self, queue: str, entry: Entry) -> None:
        """An entry is new or has changed."""

    def remove(self, queue: str, sequence_number: int) -> None:
        """An entry is gone."""

    def next_sequence(self, queue: str, number: int) -> None:
        """The sequence number that comes next; it must never go back."""

    def remember(self, queue: str, message_id: str, until_ms: int) -> None:
        """A message id counts as seen until then."""

    def forget(self, queue: str, message_id: str) -> None:
        """A message id counts as seen no more."""


class Queue:
    """A queue and, unless it is one itself, its dead-letter queue."""

    def __init__(
        self,
        name: str,
        settings: QueueSettings,
        clock_ms: Callable[[], int],
        journal: Journal,
        *,
        dead_letter: "Queue | None" = None,
        new_token: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self.name = name
        self.settings = settings
        self.dead_letter = dead_letter
        self._clock_ms = clock_ms
        self._journal = journal
        self._new_token = new_token
        self._next_sequence = 1
        self._entries: dict[int, Entry] = {}
        self._index = SequenceIndex()
        self._ready: list[int] = []
        self._locks: dict[uuid.UUID, int] = {}
        self._lock_ends: list[tuple[int, int]] = []
        self._due: list[tuple[int, int]] = []
        self._expiries: list[tuple[int, int]] = []
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._scheduled = 0
        self._size_bytes = 0

    # --- coming in

    def send(self, message: Message, due_ms: int | None = None) -> int:
        """Takes a message, at once or for a time to come; returns its sequence number.

        A duplicate within the window is dropped, as Azure does, and 0 is returned.
        """
        now_ms = self.advance()
        if self.settings.requires_duplicate_detection:
            if message.message_id in self._seen:
                return 0
            until_ms = now_ms + self.settings.duplicate_window_ms
            self._seen[message.message_id] = until_ms
            self._journal.remember(self.name, message.message_id, until_ms)
        entry = Entry(self._number(), message, now_ms)
        if due_ms is not None and due_ms > now_ms:
            entry.due_ms = due_ms
        else:
            self._start_expiry(entry)
        self._add(entry)
        self._journal.put(self.name, entry)
        return entry.sequence_number

    def restore(self, entries: Iterable[Entry], next_sequence: int, seen: dict[str, int]) -> None:
        """Fills an empty queue from the store.

        `seen` maps message ids to when they are forgotten, soonest first.
        """
        for entry in entries:
            self._add(entry)
        self._next_sequence = max(next_sequence, self._next_sequence)
        self._seen.update(seen)

    def _number(self) -> int:
        number = self._next_sequence
        self._next_sequence += 1
        self._journal.next_sequence(self.name, self._next_sequence)
        return number

    def _start_expiry(self, entry: Entry) -> None:
        """Time to live counts from enqueueing; a dead-letter queue has none."""
        ttl_ms = min(entry.message.ttl_ms or FOREVER_MS, self.settings.default_ttl_ms)
        entry.expires_ms = None if ttl_ms >= FOREVER_MS else entry.enqueued_ms + ttl_ms

    def _add(self, entry: Entry) -> None:
        number = entry.sequence_number
        self._entries[number] = entry
        self._index.add(number)
        self._size_bytes += len(entry.message.bare)
        if entry.due_ms is not None:
            self._scheduled += 1
            heapq.heappush(self._due, (entry.due_ms, number))
            return
        if entry.expires_ms is not None:
            heapq.heappush(self._expiries, (entry.expires_ms, number))
        if not entry.deferred:
            heapq.heappush(self._ready, number)

    def _drop(self, entry: Entry) -> None:
        number = entry.sequence_number
        del self._entries[number]
        self._index.remove(number)
        self._size_bytes -= len(entry.message.bare)
        self._scheduled -= entry.due_ms is not None
        self._journal.remove(self.name, number)
        if len(self._expiries) > 2 * len(self._entries) + _SLACK:
            live = [e for e in self._entries.values() if e.expires_ms and e.due_ms is None]
            self._expiries = [(e.expires_ms or 0, e.sequence_number) for e in live]
            heapq.heapify(self._expiries)
        if len(self._lock_ends) > 2 * len(self._entries) + _SLACK:
            held = (self._entries[number] for number in self._locks.values())
            self._lock_ends = [(e.locked_until_ms, e.sequence_number) for e in held]
            heapq.heapify(self._lock_ends)
        if len(self._ready) > 2 * len(self._entries) + _SLACK:
            self._ready = [number for number in self._ready if number in self._entries]
            heapq.heapify(self._ready)

    # --- time

    def advance(self) -> int:
        """Applies everything that has become due; returns the time it was applied at."""
        now_ms = self._clock_ms()
        while self._lock_ends and self._lock_ends[0][0] <= now_ms:
            _, number = heapq.heappop(self._lock_ends)
            entry = self._entries.get(number)
            if entry and entry.lock_token and entry.locked_until_ms <= now_ms:
                self._unlock(entry)
                self._failed(entry)
        while self._due and self._due[0][0] <= now_ms:
            due_ms, number = heapq.heappop(self._due)
            entry = self._entries.get(number)
            if entry and entry.due_ms is not None:
                self._enqueue_scheduled(entry, due_ms)
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, number = heapq.heappop(self._expiries)
            entry = self._entries.get(number)
            if entry and entry.lock_token is None and not entry.deferred:
                self._expire(entry)
        while self._seen and next(iter(self._seen.values())) <= now_ms:
            self._journal.forget(self.name, self._seen.popitem(last=False)[0])
        return now_ms

    def next_event_ms(self) -> int | None:
        """When `advance` may next have something to do; None when never."""
        heaps = (self._lock_ends, self._due, self._expiries)
        return min((heap[0][0] for heap in heaps if heap), default=None)

    def _enqueue_scheduled(self, entry: Entry, due_ms: int) -> None:
        """A scheduled message becomes active under a new sequence number."""
        self._drop(entry)
        active = Entry(self._number(), entry.message, due_ms)
        self._start_expiry(active)
        self._add(active)
        self._journal.put(self.name, active)

    def _expire(self, entry: Entry) -> None:
        if self.dead_letter is not None and self.settings.dead_letter_expired:
            self._move(entry, "TTLExpiredException", "The message expired and was dead lettered.")
        else:
            self._drop(entry)

    # --- going out

    def lease(self, *, remove: bool = False) -> Entry | None:
        """The next ready message, locked for `lock_duration_ms`; with `remove`, taken for good.

        None when nothing is ready.
        """
        now_ms = self.advance()
        while self._ready:
            entry = self._entries.get(heapq.heappop(self._ready))
            if entry is None or entry.lock_token is not None or entry.deferred:
                continue
            if remove:
                self._drop(entry)
            else:
                self._lock(entry, now_ms)
            return entry
        return None

    def receive_deferred(self, numbers: Iterable[int], *, remove: bool = False) -> list[Entry]:
        """Deferred messages by number, locked or removed.

        Raises MessageNotFoundError unless all are there, deferred and not locked.
        """
        now_ms = self.advance()
        entries = [self._entries.get(number) for number in dict.fromkeys(numbers)]
        found = [e for e in entries if e and e.deferred and e.lock_token is None]
        if len(found) != len(entries) or not found:
            raise MessageNotFoundError("a requested message is not there, or is not deferred")
        for entry in found:
            if remove:
                self._drop(entry)
            else:
                self._lock(entry, now_ms)
        return found

    def peek(self, first: int, limit: int) -> list[Entry]:
        """Up to `limit` messages of any state with sequence numbers from `first` on."""
        self.advance()
        found: list[Entry] = []
        for number in self._index.from_number(first):
            if len(found) >= limit:
                break
            found.append(self._entries[number])
        return found

    def cancel_scheduled(self, numbers: Iterable[int]) -> None:
        """Drops scheduled messages.

        Raises MessageNotFoundError, and drops none, unless all are there.
        """
        self.advance()
        entries = [self._entries.get(number) for number in dict.fromkeys(numbers)]
        found = [entry for entry in entries if entry and entry.due_ms is not None]
        if len(found) != len(entries):
            raise MessageNotFoundError("a scheduled message was not found")
        for entry in found:
            self._drop(entry)

    # --- settlement, by lock token; each raises LockLostError when the lock is not held

    def complete(self, token: uuid.UUID) -> None:
        """Done with: the message goes."""
        entry = self._locked(token)
        self._unlock(entry)
        self._drop(entry)

    def abandon(self, token: uuid.UUID) -> None:
        """Failed: back it goes, counted."""
        entry = self._locked(token)
        self._unlock(entry)
        self._failed(entry)

    def release(self, token: uuid.UUID) -> None:
        """Given back unopened: nothing is counted."""
        entry = self._locked(token)
        self._unlock(entry)
        self._return(entry)

    def defer(self, token: uuid.UUID) -> None:
        """Set aside until it is asked for by its number."""
        entry = self._locked(token)
        self._unlock(entry)
        entry.deferred = True
        self._journal.put(self.name, entry)

    def reject(self, token: uuid.UUID, properties: Mapping[str, object]) -> None:
        """Moved to the dead-letter queue with these application properties added.

        In a dead-letter queue itself it counts as a failure.
        """
        entry = self._locked(token)
        self._unlock(entry)
        if self.dead_letter is None:
            self._failed(entry)
        else:
            self._bury(entry, properties)

    def renew(self, token: uuid.UUID) -> int:
        """Locks it anew from now on; returns until when, in milliseconds."""
        entry = self._locked(token)
        entry.locked_until_ms = self._clock_ms() + self.settings.lock_duration_ms
        heapq.heappush(self._lock_ends, (entry.locked_until_ms, entry.sequence_number))
        return entry.locked_until_ms

    def holds(self, token: uuid.UUID) -> bool:
        """Whether this lock is held now."""
        self.advance()
        return token in self._locks

    def _locked(self, token: uuid.UUID) -> Entry:
        self.advance()
        number = self._locks.get(token)
        if number is None:
            raise LockLostError("the lock supplied is invalid: expired, or the message is settled")
        return self._entries[number]

    def _lock(self, entry: Entry, now_ms: int) -> None:
        entry.lock_token = self._new_token()
        entry.locked_until_ms = now_ms + self.settings.lock_duration_ms
        self._locks[entry.lock_token] = entry.sequence_number
        heapq.heappush(self._lock_ends, (entry.locked_until_ms, entry.sequence_number))

    def _unlock(self, entry: Entry) -> None:
        if entry.lock_token is not None:
            del self._locks[entry.lock_token]
            entry.lock_token = None

    def _failed(self, entry: Entry) -> None:
        entry.delivery_count += 1
        limit = self.settings.max_delivery_count
        if self.dead_letter is not None and entry.delivery_count >= limit > 0:
            text = f"Message could not be consumed after {entry.delivery_count} delivery attempts."
            self._move(entry, "MaxDeliveryCountExceeded", text)
            return
        self._journal.put(self.name, entry)
        self._return(entry)

    def _return(self, entry: Entry) -> None:
        if entry.deferred:
            return
        if entry.expires_ms is not None and entry.expires_ms <= self._clock_ms():
            self._expire(entry)
        else:
            heapq.heappush(self._ready, entry.sequence_number)

    def _move(self, entry: Entry, reason: str, description: str) -> None:
        self._bury(entry, {"DeadLetterReason": reason, "DeadLetterErrorDescription": description})

    def _bury(self, entry: Entry, properties: Mapping[str, object]) -> None:
        """Moves an unlocked entry to the dead-letter queue, where it gets a number of its own."""
        self._drop(entry)
        if self.dead_letter is None:
            return
        buried = Entry(
            self.dead_letter._number(),
            with_application_properties(entry.message, properties),
            entry.enqueued_ms,
            delivery_count=entry.delivery_count,
            enqueue_sequence_number=entry.sequence_number,
        )
        self.dead_letter._add(buried)
        self._journal.put(self.dead_letter.name, buried)

    def counts(self) -> Counts:
        """What is held now, in O(1)."""
        self.advance()
        dead = len(self.dead_letter._entries) if self.dead_letter else 0
        return Counts(
            active=len(self._entries) - self._scheduled,
            scheduled=self._scheduled,
            dead_lettered=dead,
            size_bytes=self._size_bytes,
        )
