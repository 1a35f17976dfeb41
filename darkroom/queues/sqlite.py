"""The queue of one machine: a table in a SQLite file that several processes share.

A message that ``send`` accepted survives kill -9 (see `darkroom.sqlite` for power cuts). One file
serves every pool: the column ``queue`` tells them apart. A second send with the id of a message
that waits is dropped. A message that is given back without delay keeps its place. Expired leases
are found by the next `lease` call of any process.

Leasing and sending touch a few index entries, however many messages wait: one partial index holds
the waiting in the order of their visibility, the other the leased in the order of their expiry.
"""

import asyncio
import json
import random
import sqlite3
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from darkroom.clock import Clock, SystemClock
from darkroom.errors import DeadLetterNotFound, LeaseLost
from darkroom.messages import Message
from darkroom.queues.base import (
    MAX_DELIVERY_COUNT_EXCEEDED,
    DeadLetter,
    JobQueue,
    Lease,
    QueueDepth,
)
from darkroom.queues.doorbell import Doorbell
from darkroom.sqlite import Database

POLL_SECONDS = 0.05

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    message_id TEXT NOT NULL,
    body BLOB NOT NULL,
    properties TEXT NOT NULL,
    enqueued_at REAL NOT NULL,
    visible_at REAL NOT NULL,
    delivery_count INTEGER NOT NULL DEFAULT 0,
    token TEXT,
    expires_at REAL
);
CREATE INDEX IF NOT EXISTS messages_waiting ON messages (queue, visible_at, seq)
    WHERE token IS NULL;
CREATE INDEX IF NOT EXISTS messages_leased ON messages (queue, expires_at)
    WHERE token IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_id ON messages (queue, message_id) WHERE token IS NULL;
CREATE TABLE IF NOT EXISTS dead_letters (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    message_id TEXT NOT NULL,
    body BLOB NOT NULL,
    properties TEXT NOT NULL,
    enqueued_at REAL NOT NULL,
    delivery_count INTEGER NOT NULL,
    reason TEXT NOT NULL,
    description TEXT NOT NULL,
    UNIQUE (queue, message_id)
);
CREATE INDEX IF NOT EXISTS dead_letters_by_age ON dead_letters (queue, seq)
"""

_SEND = """
INSERT INTO messages (queue, message_id, body, properties, enqueued_at, visible_at)
SELECT :queue, :message_id, :body, :properties, :now, :visible_at
WHERE NOT EXISTS (
    SELECT 1 FROM messages WHERE queue = :queue AND message_id = :message_id AND token IS NULL
)
"""
_READY = """
SELECT EXISTS (SELECT 1 FROM messages WHERE queue = :queue AND token IS NULL
               AND visible_at <= :now)
    OR EXISTS (SELECT 1 FROM messages WHERE queue = :queue AND token IS NOT NULL
               AND expires_at <= :now)
"""
_EXPIRED = """
SELECT seq, delivery_count FROM messages
WHERE queue = :queue AND token IS NOT NULL AND expires_at <= :now
ORDER BY expires_at, seq
"""
_NEXT = """
SELECT seq, message_id, body, properties, delivery_count + 1 FROM messages
WHERE queue = :queue AND token IS NULL AND visible_at <= :now
ORDER BY visible_at, seq LIMIT :limit
"""
_TAKE = """
UPDATE messages SET token = ?, expires_at = ?, delivery_count = delivery_count + 1 WHERE seq = ?
"""
_BURY = """
INSERT OR REPLACE INTO dead_letters
    (queue, message_id, body, properties, enqueued_at, delivery_count, reason, description)
SELECT queue, message_id, body, properties, enqueued_at, delivery_count, ?, ?
FROM messages WHERE seq = ?
"""
_DEPTH = """
SELECT (SELECT count(*) FROM messages WHERE queue = :queue AND token IS NULL
        AND visible_at <= :now)
     + (SELECT count(*) FROM messages WHERE queue = :queue AND token IS NOT NULL),
       (SELECT count(*) FROM dead_letters WHERE queue = :queue),
       (SELECT count(*) FROM messages WHERE queue = :queue AND token IS NULL
        AND visible_at > :now)
"""
_DEAD = """
SELECT message_id, body, properties, reason, description, delivery_count, enqueued_at
FROM dead_letters WHERE queue = ? ORDER BY seq LIMIT ?
"""
_RESUBMIT = """
INSERT INTO messages (queue, message_id, body, properties, enqueued_at, visible_at)
SELECT queue, message_id, body, properties, :now, :now
FROM dead_letters WHERE queue = :queue AND message_id = :message_id AND NOT EXISTS (
    SELECT 1 FROM messages WHERE queue = :queue AND message_id = :message_id AND token IS NULL
)
"""


class SqliteJobQueue(JobQueue):
    """One pool's messages in ``database``, which was opened with this module's `SCHEMA`."""

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        lease_seconds: float,
        max_delivery_count: int,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._name = name
        self.lease_seconds = lease_seconds
        self.max_delivery_count = max_delivery_count
        self._clock = clock or SystemClock()
        self._doorbell = Doorbell()

    async def send(self, message: Message, *, not_before: datetime | None = None) -> None:
        """Enqueue; durable once this returns."""
        now = self.timestamp()
        row = {
            "queue": self._name,
            "message_id": message.message_id,
            "body": message.encode(),
            "properties": json.dumps(dict(message.properties)),
            "now": now,
            "visible_at": max(now, not_before.timestamp()) if not_before else now,
        }
        await self._database.write(lambda connection: connection.execute(_SEND, row) and None)
        self._doorbell.ring()

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        """Hold up to ``max_messages``; looks again every 50 ms or at a send of this process."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + max_wait_seconds
        leases = await self._database.write(lambda connection: self._take(connection, max_messages))
        while not leases and (left := ends - loop.time()) > 0:
            pause = POLL_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
            await self._doorbell.wait(min(left, pause))
            if await self._database.read(self._anything_ready):
                leases = await self._database.write(
                    lambda connection: self._take(connection, max_messages)
                )
        return leases

    async def depth(self) -> QueueDepth:
        """Count the messages."""
        row = await self._database.read(
            lambda connection: connection.execute(_DEPTH, self._moment()).fetchone()
        )
        return QueueDepth(active=row[0], dead_lettered=row[1], scheduled=row[2])

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return up to ``limit`` dead letters, oldest first."""
        rows = await self._database.read(
            lambda connection: connection.execute(_DEAD, (self._name, limit)).fetchall()
        )
        return [
            DeadLetter(
                message_id=row[0],
                body=row[1],
                properties=json.loads(row[2]),
                reason=row[3],
                description=row[4],
                delivery_count=row[5],
                enqueued_at=datetime.fromtimestamp(row[6], UTC),
            )
            for row in rows
        ]

    async def resubmit(self, message_id: str) -> None:
        """Move a dead letter back to the end of the line."""

        def move(connection: sqlite3.Connection) -> None:
            connection.execute(_RESUBMIT, {**self._moment(), "message_id": message_id})
            self._remove_dead_letter(connection, message_id)

        await self._database.write(move)
        self._doorbell.ring()

    async def discard(self, message_id: str) -> None:
        """Remove a dead letter for good."""
        await self._database.write(
            lambda connection: self._remove_dead_letter(connection, message_id)
        )

    async def close(self) -> None:
        """Close the database, for every adapter that shares it."""
        await self._database.close()

    async def settle(self, change: str, values: tuple[object, ...], lease: "SqliteLease") -> None:
        """Run one statement on a leased message. Raises `LeaseLost` when it is not ours."""
        held = f"{change} WHERE seq = ? AND token = ? AND expires_at > ?"

        def run(connection: sqlite3.Connection) -> None:
            moment = (lease.seq, lease.token, self.timestamp())
            if connection.execute(held, (*values, *moment)).rowcount == 0:
                raise LeaseLost(f"the lease on message {lease.message_id} is over")

        await self._database.write(run)

    async def bury(self, lease: "SqliteLease", reason: str, description: str) -> None:
        """Move a leased message to the dead letters. Raises `LeaseLost`."""

        def run(connection: sqlite3.Connection) -> None:
            held = "SELECT 1 FROM messages WHERE seq = ? AND token = ? AND expires_at > ?"
            moment = (lease.seq, lease.token, self.timestamp())
            if connection.execute(held, moment).fetchone() is None:
                raise LeaseLost(f"the lease on message {lease.message_id} is over")
            _set_aside(connection, lease.seq, reason, description)

        await self._database.write(run)

    def ring(self) -> None:
        """Wake this process's consumers: something is visible again."""
        self._doorbell.ring()

    def timestamp(self) -> float:
        """Return the present moment in seconds since the epoch."""
        return self._clock.now().timestamp()

    def _moment(self) -> dict[str, object]:
        return {"queue": self._name, "now": self.timestamp()}

    def _anything_ready(self, connection: sqlite3.Connection) -> bool:
        return bool(connection.execute(_READY, self._moment()).fetchone()[0])

    def _take(self, connection: sqlite3.Connection, limit: int) -> list["SqliteLease"]:
        self._end_expired(connection)
        rows = connection.execute(_NEXT, {**self._moment(), "limit": limit}).fetchall()
        expires_at = self.timestamp() + self.lease_seconds
        leases = [SqliteLease(self, row, expires_at) for row in rows]
        connection.executemany(_TAKE, [(lease.token, expires_at, lease.seq) for lease in leases])
        return leases

    def _end_expired(self, connection: sqlite3.Connection) -> None:
        for seq, delivery_count in connection.execute(_EXPIRED, self._moment()).fetchall():
            if delivery_count >= self.max_delivery_count:
                _set_aside(connection, seq, *exceeded(delivery_count))
            else:
                connection.execute(
                    "UPDATE messages SET token = NULL, expires_at = NULL WHERE seq = ?", (seq,)
                )

    def _remove_dead_letter(self, connection: sqlite3.Connection, message_id: str) -> None:
        remove = "DELETE FROM dead_letters WHERE queue = ? AND message_id = ?"
        if connection.execute(remove, (self._name, message_id)).rowcount == 0:
            raise DeadLetterNotFound(f"no dead letter of message {message_id}")


class SqliteLease(Lease):
    """A row of ``messages`` that holds this lease's token."""

    def __init__(
        self, queue: SqliteJobQueue, row: tuple[int, str, bytes, str, int], expires_at: float
    ) -> None:
        self.seq, self.message_id, self.body, properties, self.delivery_count = row
        self.properties = json.loads(properties)
        self.token = uuid.uuid4().hex
        self.expires_at = datetime.fromtimestamp(expires_at, UTC)
        self._queue = queue

    async def renew(self) -> datetime:
        """Extend the hold by the queue's lease time."""
        expires_at = self._queue.timestamp() + self._queue.lease_seconds
        await self._queue.settle("UPDATE messages SET expires_at = ?", (expires_at,), self)
        self.expires_at = datetime.fromtimestamp(expires_at, UTC)
        return self.expires_at

    async def complete(self) -> None:
        """Remove the message for good."""
        await self._queue.settle("DELETE FROM messages", (), self)

    async def abandon(self, *, delay_seconds: float = 0.0, counted: bool = True) -> None:
        """Give the message back, or set it aside after its last delivery."""
        if counted and self.delivery_count >= self._queue.max_delivery_count:
            await self._queue.bury(self, *exceeded(self.delivery_count))
            return
        count = self.delivery_count if counted else self.delivery_count - 1
        change = "UPDATE messages SET token = NULL, expires_at = NULL, delivery_count = ?"
        if delay_seconds > 0:
            visible_at = self._queue.timestamp() + delay_seconds
            await self._queue.settle(f"{change}, visible_at = ?", (count, visible_at), self)
        else:
            await self._queue.settle(change, (count,), self)
            self._queue.ring()

    async def dead_letter(self, reason: str, description: str) -> None:
        """Set the message aside."""
        await self._queue.bury(self, reason, description)


def exceeded(delivery_count: int) -> tuple[str, str]:
    """Return the reason and description of a message that failed too often."""
    return MAX_DELIVERY_COUNT_EXCEEDED, f"{delivery_count} deliveries failed"


def _set_aside(connection: sqlite3.Connection, seq: int, reason: str, description: str) -> None:
    connection.execute(_BURY, (reason, description, seq))
    connection.execute("DELETE FROM messages WHERE seq = ?", (seq,))
