"""Job records of one machine: a SQLite file that several processes share.

A write that returned survives kill -9 (see `darkroom.sqlite` for power cuts). The record is a JSON
document; the columns beside it are what lists and the sweeper choose by. A page reads at most
`MAX_SCANNED` rows by the index (tenant, id), whatever the filters and however many jobs there are.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from darkroom.clock import Clock, SystemClock
from darkroom.errors import IdempotencyKeyReused, JobNotFound, VersionConflict
from darkroom.jobs import Job, JobState, is_unannounced
from darkroom.jobstores.base import (
    IDEMPOTENCY_LIFETIME,
    Backlog,
    Created,
    Idempotency,
    JobFilter,
    JobStore,
    Page,
    Waiting,
)
from darkroom.jobstores.cursor import decode_cursor, encode_cursor
from darkroom.sqlite import Database

MAX_SCANNED = 1_000
KEYS_FORGOTTEN_PER_CREATE = 4  # more than one, so that expired keys become fewer

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    status TEXT NOT NULL,
    model TEXT NOT NULL,
    created_at REAL NOT NULL,
    sent_at REAL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX IF NOT EXISTS jobs_unsent ON jobs (created_at)
    WHERE status = 'NotStarted' AND sent_at IS NULL;
CREATE TABLE IF NOT EXISTS waiting (
    job_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    pool TEXT NOT NULL,
    created_at REAL NOT NULL,
    gpu_seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting_of_tenant ON waiting (tenant, gpu_seconds);
CREATE INDEX IF NOT EXISTS waiting_in_pool ON waiting (pool, created_at, job_id, gpu_seconds);
CREATE TABLE IF NOT EXISTS unannounced (
    job_id TEXT PRIMARY KEY,
    finished_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unannounced_by_end ON unannounced (finished_at);
CREATE TABLE IF NOT EXISTS idempotency_keys (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    job_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_keys_age ON idempotency_keys (created_at)
"""

_INSERT = """
INSERT INTO jobs (id, tenant, status, model, created_at, sent_at, version, document)
VALUES (:id, :tenant, :status, :model, :created_at, :sent_at, 1, :document)
ON CONFLICT DO NOTHING
"""
_UPDATE = """
UPDATE jobs SET status = :status, model = :model, sent_at = :sent_at, document = :document,
    version = version + 1
WHERE id = :id AND CAST(version AS TEXT) = :expected
RETURNING version
"""
_WAIT = """
INSERT OR IGNORE INTO waiting (job_id, tenant, pool, created_at, gpu_seconds)
VALUES (?, ?, ?, ?, ?)
"""
_WAIT_NO_MORE = "DELETE FROM waiting WHERE job_id = ?"
_TELL = "INSERT OR IGNORE INTO unannounced (job_id, finished_at) VALUES (?, ?)"
_TOLD = "DELETE FROM unannounced WHERE job_id = ?"
_UNANNOUNCED = """
SELECT document, version FROM unannounced JOIN jobs ON jobs.id = unannounced.job_id
WHERE finished_at < ? ORDER BY finished_at LIMIT ?
"""
_BACKLOG = "SELECT count(*), total(gpu_seconds) FROM waiting WHERE tenant = ?"
_LINE = """
SELECT created_at, job_id, gpu_seconds FROM waiting WHERE pool = ?
ORDER BY created_at, job_id LIMIT ?
"""
_KNOWN_KEY = """
SELECT fingerprint, document, version FROM idempotency_keys AS known
JOIN jobs ON jobs.id = known.job_id
WHERE known.tenant = ? AND known.key = ? AND known.created_at > ?
"""
_REMEMBER_KEY = "INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?, ?, ?)"
_FORGET_KEYS = """
DELETE FROM idempotency_keys WHERE (tenant, key) IN
    (SELECT tenant, key FROM idempotency_keys WHERE created_at <= ? ORDER BY created_at LIMIT ?)
"""
_LIST = """
SELECT id, version, CASE
    WHEN (:status IS NULL OR status = :status) AND (:model IS NULL OR model = :model)
        AND (:created_after IS NULL OR created_at > :created_after)
    THEN document END
FROM jobs WHERE tenant = :tenant AND (:before IS NULL OR id < :before)
ORDER BY id DESC LIMIT :scanned
"""
_UNSENT = """
SELECT document, version FROM jobs
WHERE status = 'NotStarted' AND sent_at IS NULL AND created_at >= ? AND created_at < ?
ORDER BY created_at LIMIT ?
"""


class SqliteJobStore(JobStore):
    """Records in ``database``, which was opened with this module's `SCHEMA`."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Store a new record, or return the one that the key made."""
        row = _columns(job)

        def insert(connection: sqlite3.Connection) -> Created:
            if idempotency and (made := self._made_by(connection, job.tenant, idempotency)):
                return Created(job=made, is_new=False)
            if connection.execute(_INSERT, row).rowcount == 0:
                raise VersionConflict(f"job {job.id} exists already")
            _note_waiting(connection, job)
            if idempotency:
                self._remember(connection, job, idempotency)
            return Created(job=job.model_copy(update={"version": "1"}), is_new=True)

        return await self._database.write(insert)

    async def get(self, job_id: str) -> Job:
        """Return the record."""
        query = "SELECT document, version FROM jobs WHERE id = ?"
        row = await self._database.read(
            lambda connection: connection.execute(query, (job_id,)).fetchone()
        )
        if row is None:
            raise JobNotFound(f"there is no job {job_id}")
        return _job(*row)

    async def list(
        self, tenant: str, filters: JobFilter, *, limit: int = 20, cursor: str | None = None
    ) -> Page:
        """Return a page of the tenant's jobs, newest first."""
        asked = {
            "tenant": tenant,
            "before": decode_cursor(cursor) if cursor is not None else None,
            "status": filters.status,
            "model": filters.model,
            "created_after": filters.created_after and filters.created_after.timestamp(),
            "scanned": MAX_SCANNED + 1,
        }
        return await self._database.read(
            lambda connection: _page(connection.execute(_LIST, asked), filters, limit)
        )

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        """Write ``job`` if nobody wrote since ``expected_version``."""
        row = {**_columns(job), "expected": expected_version}

        def update(connection: sqlite3.Connection) -> int:
            written = connection.execute(_UPDATE, row).fetchall()
            if written:
                _note_waiting(connection, job)
                _note_event(connection, job)
                return int(written[0][0])
            query = "SELECT 1 FROM jobs WHERE id = ?"
            if connection.execute(query, (job.id,)).fetchone() is None:
                raise JobNotFound(f"there is no job {job.id}")
            raise VersionConflict(f"job {job.id} was changed since it was read")

        version = await self._database.write(update)
        return job.model_copy(update={"version": str(version)})

    async def unsent(
        self, created_before: datetime, limit: int = 100, created_from: datetime | None = None
    ) -> Sequence[Job]:
        """Return up to ``limit`` jobs that wait without a confirmed send, oldest first."""
        first = created_from.timestamp() if created_from else 0.0
        asked = (first, created_before.timestamp(), limit)
        rows = await self._database.read(
            lambda connection: connection.execute(_UNSENT, asked).fetchall()
        )
        return [_job(*row) for row in rows]

    async def unannounced(self, ended_before: datetime, limit: int = 100) -> Sequence[Job]:
        """Return up to ``limit`` ended jobs whose webhook's event is not queued, oldest first."""
        asked = (ended_before.timestamp(), limit)
        rows = await self._database.read(
            lambda connection: connection.execute(_UNANNOUNCED, asked).fetchall()
        )
        return [_job(*row) for row in rows]

    async def backlog(self, tenant: str) -> Backlog:
        """Count the tenant's waiting jobs: one index entry is read for each."""
        count, gpu_seconds = await self._database.read(
            lambda connection: connection.execute(_BACKLOG, (tenant,)).fetchone()
        )
        return Backlog(count, gpu_seconds)

    async def line(self, pool: str, limit: int) -> Sequence[Waiting] | None:
        """Return the pool's waiting jobs, oldest first: one index entry is read for each."""
        rows = await self._database.read(
            lambda connection: connection.execute(_LINE, (pool, limit)).fetchall()
        )
        return [Waiting(*row) for row in rows]

    async def close(self) -> None:
        """Close the database, for every adapter that shares it."""
        await self._database.close()

    def _oldest_key(self) -> float:
        return (self._clock.now() - IDEMPOTENCY_LIFETIME).timestamp()

    def _made_by(
        self, connection: sqlite3.Connection, tenant: str, idempotency: Idempotency
    ) -> Job | None:
        known = (tenant, idempotency.key, self._oldest_key())
        row = connection.execute(_KNOWN_KEY, known).fetchone()
        if row is None:
            return None
        if row[0] != idempotency.fingerprint:
            raise IdempotencyKeyReused("the idempotency key was used for another request")
        return _job(row[1], row[2])

    def _remember(self, connection: sqlite3.Connection, job: Job, idempotency: Idempotency) -> None:
        connection.execute(_FORGET_KEYS, (self._oldest_key(), KEYS_FORGOTTEN_PER_CREATE))
        entry = (job.tenant, idempotency.key, idempotency.fingerprint, job.id)
        connection.execute(_REMEMBER_KEY, (*entry, job.created_at.timestamp()))


def _note_waiting(connection: sqlite3.Connection, job: Job) -> None:
    """Keep the table of waiting jobs true, in the transaction that writes the record."""
    if job.status is not JobState.NOT_STARTED:
        connection.execute(_WAIT_NO_MORE, (job.id,))
        return
    created_at = job.created_at.timestamp()
    row = (job.id, job.tenant, job.pool, created_at, job.estimated_gpu_seconds)
    connection.execute(_WAIT, row)


def _note_event(connection: sqlite3.Connection, job: Job) -> None:
    """Keep the table of events to be told true, in the transaction that writes the record."""
    if job.webhook is None or job.finished_at is None:
        return
    if is_unannounced(job):
        connection.execute(_TELL, (job.id, job.finished_at.timestamp()))
    else:
        connection.execute(_TOLD, (job.id,))


def _columns(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "tenant": job.tenant,
        "status": job.status,
        "model": job.generation.model,
        "created_at": job.created_at.timestamp(),
        "sent_at": job.sent_at and job.sent_at.timestamp(),
        "document": job.model_dump_json(),
    }


def _job(document: str, version: int) -> Job:
    return Job.model_validate_json(document).model_copy(update={"version": str(version)})


def _page(rows: sqlite3.Cursor, filters: JobFilter, limit: int) -> Page:
    """Read until the page is full or enough was scanned; there is a next page if a row is left."""
    jobs: list[Job] = []
    last = ""
    for scanned, (job_id, version, document) in enumerate(rows):
        if len(jobs) == limit or scanned == MAX_SCANNED:
            rows.close()
            return Page(jobs, encode_cursor(last))
        last = job_id
        if document is not None and filters.matches(job := _job(document, version)):
            jobs.append(job)
    return Page(jobs, None)
