"""Job records inside one process, for tests and for reading. Nothing survives the process."""

import threading
from bisect import bisect_left, insort
from collections import defaultdict
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


class MemoryJobStore(JobStore):
    """Records by id; versions are counters."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._ids: defaultdict[str, list[str]] = defaultdict(list)  # per tenant, oldest first
        self._waiting: dict[str, Job] = {}
        self._keys: dict[tuple[str, str], tuple[str, Job]] = {}

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Store a new record, or return the one that the key made."""
        with self._lock:
            if idempotency and (made := self._made_by(job.tenant, idempotency)):
                return Created(job=made, is_new=False)
            if job.id in self._jobs:
                raise VersionConflict(f"job {job.id} exists already")
            stored = self._write(job, 1)
            insort(self._ids[job.tenant], job.id)
            if idempotency:
                self._keys[job.tenant, idempotency.key] = (idempotency.fingerprint, stored)
            return Created(job=stored, is_new=True)

    async def get(self, job_id: str) -> Job:
        """Return the record."""
        with self._lock:
            return self._get(job_id)

    async def list(
        self, tenant: str, filters: JobFilter, *, limit: int = 20, cursor: str | None = None
    ) -> Page:
        """Return a page of the tenant's jobs, newest first."""
        before = decode_cursor(cursor) if cursor is not None else None
        with self._lock:
            ids = self._ids.get(tenant, [])
            end = len(ids) if before is None else bisect_left(ids, before)
            jobs: list[Job] = []
            for index in range(end - 1, -1, -1):
                if len(jobs) == limit:
                    return Page(jobs, encode_cursor(jobs[-1].id))
                job = self._jobs[ids[index]]
                if filters.matches(job):
                    jobs.append(job)
        return Page(jobs, None)

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        """Write ``job`` if nobody wrote since ``expected_version``."""
        with self._lock:
            present = self._get(job.id)
            if present.version != expected_version:
                raise VersionConflict(f"job {job.id} was changed since it was read")
            return self._write(job, int(present.version) + 1)

    async def unsent(
        self, created_before: datetime, limit: int = 100, created_from: datetime | None = None
    ) -> Sequence[Job]:
        """Return up to ``limit`` jobs that wait without a confirmed send, oldest first."""
        with self._lock:
            waiting = [
                job
                for job in self._jobs.values()
                if job.status is JobState.NOT_STARTED
                and job.sent_at is None
                and job.created_at < created_before
                and (created_from is None or job.created_at >= created_from)
            ]
        return sorted(waiting, key=lambda job: job.created_at)[:limit]

    async def unannounced(self, ended_before: datetime, limit: int = 100) -> Sequence[Job]:
        """Return up to ``limit`` ended jobs whose webhook's event is not queued; reads all."""
        with self._lock:
            found = [
                (job.finished_at, job.id, job)
                for job in self._jobs.values()
                if is_unannounced(job) and job.finished_at and job.finished_at < ended_before
            ]
        return [job for _, _, job in sorted(found, key=lambda each: each[:2])[:limit]]

    async def backlog(self, tenant: str) -> Backlog:
        """Count the tenant's waiting jobs; reads all that wait."""
        with self._lock:
            mine = [job for job in self._waiting.values() if job.tenant == tenant]
        return Backlog(len(mine), sum(job.estimated_gpu_seconds for job in mine))

    async def line(self, pool: str, limit: int) -> Sequence[Waiting] | None:
        """Return the pool's waiting jobs, oldest first; reads all that wait."""
        with self._lock:
            line = [
                Waiting(job.created_at.timestamp(), job.id, job.estimated_gpu_seconds)
                for job in self._waiting.values()
                if job.pool == pool
            ]
        return sorted(line)[:limit]

    def _get(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise JobNotFound(f"there is no job {job_id}")
        return self._jobs[job_id]

    def _write(self, job: Job, version: int) -> Job:
        stored = job.model_copy(update={"version": str(version)})
        self._jobs[job.id] = stored
        if job.status is JobState.NOT_STARTED:
            self._waiting[job.id] = stored
        else:
            self._waiting.pop(job.id, None)
        return stored

    def _made_by(self, tenant: str, idempotency: Idempotency) -> Job | None:
        fingerprint, made = self._keys.get((tenant, idempotency.key), ("", None))
        if made is None or made.created_at + IDEMPOTENCY_LIFETIME <= self._clock.now():
            return None
        if fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReused("the idempotency key was used for another request")
        return self._jobs[made.id]
