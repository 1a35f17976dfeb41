"""Where queues are kept: nowhere, or in one SQLite file that survives kill -9.

A store gathers the changes of one turn of the event loop and commits them in one transaction; the
broker acknowledges only after the commit. Kept: messages with their delivery counts, deferred and
scheduled ones, the next sequence number of every queue, the duplicate window, queue settings. Not
kept: locks, so what was locked is ready again after a restart.
"""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from emulators.service_bus.codec import encode_raw_map, raw_map_items
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.message import Message
from emulators.service_bus.queue import Entry, Journal

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE queues (name TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sequences (queue TEXT PRIMARY KEY, next_number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE messages (
  queue TEXT NOT NULL, sequence_number INTEGER NOT NULL, message_id TEXT NOT NULL,
  bare BLOB NOT NULL, annotations BLOB NOT NULL, ttl_ms INTEGER, scheduled_ms INTEGER,
  durable INTEGER, priority INTEGER, enqueued_ms INTEGER NOT NULL, expires_ms INTEGER,
  due_ms INTEGER, delivery_count INTEGER NOT NULL, deferred INTEGER NOT NULL,
  enqueue_sequence_number INTEGER, PRIMARY KEY (queue, sequence_number)
);
CREATE TABLE duplicates (
  queue TEXT NOT NULL, message_id TEXT NOT NULL, until_ms INTEGER NOT NULL,
  PRIMARY KEY (queue, message_id)
) WITHOUT ROWID;
"""
_PUT: Final = "INSERT OR REPLACE INTO messages VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_DROP: Final = (
    "DELETE FROM messages WHERE queue = ?",
    "DELETE FROM sequences WHERE queue = ?",
    "DELETE FROM duplicates WHERE queue = ?",
    "DELETE FROM queues WHERE name = ?",
)


class StoreError(Exception):
    """The database cannot be used; the message says why."""


class Store(Journal, Protocol):
    """A journal that can commit, and give back what it kept."""

    @property
    def dirty(self) -> bool:
        """Whether there is something to commit."""

    def save_queue(self, name: str, settings: QueueSettings) -> None:
        """A queue is new or its settings have changed."""

    def drop_queue(self, *names: str) -> None:
        """Queues are gone, with everything in them."""

    def queues(self) -> dict[str, QueueSettings]:
        """The queues that were kept."""

    def load(self, queue: str) -> tuple[list[Entry], int, dict[str, int]]:
        """Messages, next sequence number, and message ids with the end of their window."""

    def commit(self) -> None:
        """Makes the changes so far durable."""

    def close(self) -> None:
        """Commits and lets go of the file."""


class MemoryStore:
    """Keeps nothing."""

    dirty = False

    def put(self, queue: str, entry: Entry) -> None:
        """Nothing to keep."""

    def remove(self, queue: str, sequence_number: int) -> None:
        """Nothing to keep."""

    def next_sequence(self, queue: str, number: int) -> None:
        """Nothing to keep."""

    def remember(self, queue: str, message_id: str, until_ms: int) -> None:
        """Nothing to keep."""

    def forget(self, queue: str, message_id: str) -> None:
        """Nothing to keep."""

    def save_queue(self, name: str, settings: QueueSettings) -> None:
        """Nothing to keep."""

    def drop_queue(self, *names: str) -> None:
        """Nothing to keep."""

    def queues(self) -> dict[str, QueueSettings]:
        """No queues."""
        return {}

    def load(self, queue: str) -> tuple[list[Entry], int, dict[str, int]]:
        """No messages."""
        return [], 1, {}

    def commit(self) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Nothing to let go of."""


class SqliteStore:
    """One SQLite file, in WAL mode, held exclusively by one broker.

    `synchronous=NORMAL` survives the death of the process, which is what an emulator is for; a
    power cut may cost the last commits. Raises StoreError when the file is in use, is no database
    or has another schema version.
    """

    def __init__(self, path: Path) -> None:
        self._messages: dict[tuple[str, int], Entry | None] = {}
        self._sequences: dict[str, int] = {}
        self._duplicates: dict[tuple[str, str], int | None] = {}
        self._saved: dict[str, QueueSettings] = {}
        self._dropped: list[str] = []
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(
                    f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"
                )
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error
        if version not in (0, SCHEMA_VERSION):
            raise StoreError(f"{path}: schema version {version}, this is {SCHEMA_VERSION}")

    @property
    def dirty(self) -> bool:
        """Whether there is something to commit."""
        return bool(
            self._messages or self._sequences or self._duplicates or self._saved or self._dropped
        )

    def put(self, queue: str, entry: Entry) -> None:
        """Kept at the next commit, in the state it has then."""
        self._messages[queue, entry.sequence_number] = entry

    def remove(self, queue: str, sequence_number: int) -> None:
        """Deleted at the next commit."""
        self._messages[queue, sequence_number] = None

    def next_sequence(self, queue: str, number: int) -> None:
        """Kept at the next commit."""
        self._sequences[queue] = number

    def remember(self, queue: str, message_id: str, until_ms: int) -> None:
        """Kept at the next commit."""
        self._duplicates[queue, message_id] = until_ms

    def forget(self, queue: str, message_id: str) -> None:
        """Deleted at the next commit."""
        self._duplicates[queue, message_id] = None

    def save_queue(self, name: str, settings: QueueSettings) -> None:
        """Kept at the next commit."""
        self._saved[name] = settings

    def drop_queue(self, *names: str) -> None:
        """Deleted now, and everything that still waits for these queues with it."""
        self._messages = {k: v for k, v in self._messages.items() if k[0] not in names}
        self._duplicates = {k: v for k, v in self._duplicates.items() if k[0] not in names}
        for name in names:
            self._sequences.pop(name, None)
            self._saved.pop(name, None)
        self._dropped.extend(names)
        self.commit()

    def queues(self) -> dict[str, QueueSettings]:
        """The queues that were kept."""
        rows = self._db.execute("SELECT name, settings FROM queues ORDER BY name")
        return {name: QueueSettings(**json.loads(settings)) for name, settings in rows}

    def load(self, queue: str) -> tuple[list[Entry], int, dict[str, int]]:
        """Messages in order, next sequence number, and message ids, soonest forgotten first."""
        rows = self._db.execute(
            "SELECT * FROM messages WHERE queue = ? ORDER BY sequence_number", (queue,)
        )
        entries = [_entry(row) for row in rows]
        found = self._db.execute("SELECT next_number FROM sequences WHERE queue = ?", (queue,))
        next_number = (found.fetchone() or (1,))[0]
        seen = self._db.execute(
            "SELECT message_id, until_ms FROM duplicates WHERE queue = ? ORDER BY until_ms",
            (queue,),
        )
        return entries, next_number, dict(seen.fetchall())

    def commit(self) -> None:
        """One transaction for everything gathered; raises sqlite3.Error when it fails."""
        if not self.dirty:
            return
        run = self._db.executemany
        self._db.execute("BEGIN IMMEDIATE")
        for name in self._dropped:
            for statement in _DROP:
                self._db.execute(statement, (name,))
        settings = ((name, json.dumps(asdict(kept))) for name, kept in self._saved.items())
        run("INSERT OR REPLACE INTO queues VALUES (?, ?)", settings)
        run("INSERT OR REPLACE INTO sequences VALUES (?, ?)", self._sequences.items())
        gone = (key for key, entry in self._messages.items() if entry is None)
        run("DELETE FROM messages WHERE queue = ? AND sequence_number = ?", gone)
        run(_PUT, (_row(key[0], entry) for key, entry in self._messages.items() if entry))
        past = (key for key, until_ms in self._duplicates.items() if until_ms is None)
        run("DELETE FROM duplicates WHERE queue = ? AND message_id = ?", past)
        run("INSERT OR REPLACE INTO duplicates VALUES (?, ?, ?)", self._remembered())
        self._db.execute("COMMIT")
        for gathered in (self._messages, self._sequences, self._duplicates, self._saved):
            gathered.clear()
        self._dropped.clear()

    def _remembered(self) -> Iterator[tuple[str, str, int]]:
        for (queue, message_id), until_ms in self._duplicates.items():
            if until_ms is not None:
                yield queue, message_id, until_ms

    def close(self) -> None:
        """Commits and closes; the file has no leftovers beside it then."""
        self.commit()
        self._db.close()


def _row(queue: str, entry: Entry) -> tuple[object, ...]:
    message = entry.message
    return (
        queue, entry.sequence_number, message.message_id, message.bare,
        encode_raw_map(list(message.annotations)), message.ttl_ms, message.scheduled_ms,
        message.durable, message.priority, entry.enqueued_ms, entry.expires_ms, entry.due_ms,
        entry.delivery_count, entry.deferred, entry.enqueue_sequence_number,
    )  # fmt: skip


def _entry(row: tuple[Any, ...]) -> Entry:
    (_, number, message_id, bare, annotations, ttl_ms, scheduled_ms, durable, priority,
     enqueued_ms, expires_ms, due_ms, delivery_count, deferred, enqueue_number) = row  # fmt: skip
    message = Message(
        bare=bare,
        message_id=message_id,
        annotations=tuple(raw for _, raw in raw_map_items(annotations)),
        ttl_ms=ttl_ms,
        scheduled_ms=scheduled_ms,
        durable=None if durable is None else bool(durable),
        priority=priority,
    )
    return Entry(
        sequence_number=number,
        message=message,
        enqueued_ms=enqueued_ms,
        expires_ms=expires_ms,
        due_ms=due_ms,
        delivery_count=delivery_count,
        deferred=bool(deferred),
        enqueue_sequence_number=enqueue_number,
    )
