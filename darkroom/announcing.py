"""Whoever writes the record that ends a job also sends its webhook's event: here, for all of them.

Worker, API and sweeper write records through an `AnnouncingJobStore`, so none can forget it.

Order of effects: the record ends, saying ``pending`` in the same write → the event's message is
sent → the record says ``queued``. Dying between any two is repaired by `announce_overdue`, which
finds what stayed ``pending``; an event that is sent twice has the same webhook id. Only jobs with a
webhook pay for it: one send and one write.
"""

from collections.abc import Sequence
from datetime import datetime

from darkroom.clock import Clock
from darkroom.errors import QueueUnavailable, StoreUnavailable, VersionConflict
from darkroom.jobs import Job, is_unannounced, mark_webhook
from darkroom.jobstores.base import (
    Backlog,
    Created,
    Idempotency,
    JobFilter,
    JobStore,
    Page,
    Waiting,
)
from darkroom.log import get_logger
from darkroom.messages import webhook_message_for
from darkroom.queues.base import JobQueue
from darkroom.webhooks import WebhookState

PAGE = 100
MAX_PAGES = 10

log = get_logger()


class AnnouncingJobStore(JobStore):
    """``store``, whose writes that end a job put its event on ``queue``."""

    def __init__(self, store: JobStore, queue: JobQueue, clock: Clock) -> None:
        self.store = store
        self._queue = queue
        self._clock = clock

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        """Write, and announce the end if this write was it."""
        written = await self.store.compare_and_set(job, expected_version)
        if not is_unannounced(written):
            return written
        return await announce(self.store, self._queue, written, self._clock.now())

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Pass on."""
        return await self.store.create(job, idempotency)

    async def get(self, job_id: str) -> Job:
        """Pass on."""
        return await self.store.get(job_id)

    async def list(
        self, tenant: str, filters: JobFilter, *, limit: int = 20, cursor: str | None = None
    ) -> Page:
        """Pass on."""
        return await self.store.list(tenant, filters, limit=limit, cursor=cursor)

    async def unsent(
        self, created_before: datetime, limit: int = 100, created_from: datetime | None = None
    ) -> Sequence[Job]:
        """Pass on."""
        return await self.store.unsent(created_before, limit, created_from)

    async def unannounced(self, ended_before: datetime, limit: int = 100) -> Sequence[Job]:
        """Pass on."""
        return await self.store.unannounced(ended_before, limit)

    async def backlog(self, tenant: str) -> Backlog:
        """Pass on."""
        return await self.store.backlog(tenant)

    async def line(self, pool: str, limit: int) -> Sequence[Waiting] | None:
        """Pass on."""
        return await self.store.line(pool, limit)

    async def close(self) -> None:
        """Close the store; the queue is its owner's."""
        await self.store.close()


async def announce(store: JobStore, queue: JobQueue, job: Job, now: datetime) -> Job:
    """Send the event of an ended job and note that; return the record as it is then known.

    Never raises for an unavailable backend: what is not confirmed is sent again later.
    """
    try:
        await queue.send(webhook_message_for(job))
    except QueueUnavailable as error:
        log.warning("announce_failed", code=error.code, **job.log_context())
        return job
    try:
        return await store.compare_and_set(mark_webhook(job, now, WebhookState.QUEUED), job.version)
    except VersionConflict:  # somebody else announced it, or erased the job
        return await store.get(job.id)
    except StoreUnavailable as error:
        log.warning("mark_announced_failed", code=error.code, **job.log_context())
        return job


async def announce_overdue(
    store: JobStore, queue: JobQueue, ended_before: datetime, now: datetime
) -> int:
    """Announce what ended before and stayed unannounced; return how many the queue took.

    Stops at the first that the queue does not take. Raises `StoreUnavailable`.
    """
    total = 0
    for _ in range(MAX_PAGES):
        jobs = await store.unannounced(ended_before, PAGE)
        for job in jobs:
            if is_unannounced(await announce(store, queue, job, now)):
                return total
            total += 1
        if len(jobs) < PAGE:
            break
    return total
