"""Sends again what was recorded but never confirmed by a queue (invariant 4).

Several API replicas may sweep at once: a second message of one job is harmless. A pool whose queue
does not answer is left until the next sweep, and its waiting jobs stand in nobody's way: a sweep
reads at most `MAX_PAGES` pages, and the next one goes on where it stopped.

A job whose deadline passes before its message is sent fails here. One whose message waits in a
queue fails when a worker is given it: finding it earlier would need an index of deadlines, which
every job would pay for.

It also calls `JobQueue.tend` of every pool, for queues that need somebody to look after them.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from api.admission import Admission
from api.exhausted import Exhausted
from darkroom.clock import Clock
from darkroom.errors import DeadlineExceeded, QueueUnavailable, VersionConflict
from darkroom.jobs import Job, JobError, fail
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger
from darkroom.metrics import ApiMetrics
from darkroom.queues.base import JobQueue

PAGE = 100
MAX_PAGES = 10


class Sweeper:
    """Looks every ``sweep_seconds`` for jobs older than ``unsent_seconds`` without a send."""

    def __init__(
        self,
        *,
        admission: Admission,
        exhausted: Exhausted,
        jobs: JobStore,
        queues: Mapping[str, JobQueue],
        clock: Clock,
        metrics: ApiMetrics,
        sweep_seconds: float,
        unsent_seconds: float,
    ) -> None:
        self._admission = admission
        self._exhausted = exhausted
        self._jobs = jobs
        self._queues = queues
        self._clock = clock
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._unsent = timedelta(seconds=unsent_seconds)
        self._next: datetime | None = None  # where the last sweep stopped, if it did
        self._log = get_logger()

    async def sweep(self) -> int:
        """Send the jobs that wait unsent; return how many the queues took.

        Raises `StoreUnavailable` when the jobs cannot be read.
        """
        total, away = 0, set[str]()
        for _ in range(MAX_PAGES):
            before = self._clock.now() - self._unsent
            jobs = await self._jobs.unsent(before, PAGE, self._next)
            stuck = False
            for job in jobs:
                if self._is_late(job):
                    await self._fail_late(job)
                elif job.pool not in away and await self._send(job):
                    total += 1
                else:
                    away.add(job.pool)
                    stuck = True
            if len(jobs) < PAGE:
                self._next = None
                break
            if stuck:
                self._next = _behind(jobs[-1].created_at, self._next)
        return total

    def _is_late(self, job: Job) -> bool:
        return job.deadline_at is not None and job.deadline_at <= self._clock.now()

    async def _fail_late(self, job: Job) -> None:
        text = "the job's deadline passed before it was started"
        error = JobError(code=DeadlineExceeded.code, message=text)
        try:
            await self._jobs.compare_and_set(fail(job, self._clock.now(), error), job.version)
        except VersionConflict:  # somebody else has it in hand
            return
        self._log.info("job_ended", status="Failed", code=error.code, **job.log_context())

    async def _send(self, job: Job) -> bool:
        after = await self._admission.send(job)
        if after.version == job.version:
            return False
        self._metrics.jobs_resent.labels(job.pool).inc()
        self._log.info("resent", pool=job.pool, **job.log_context())
        return True

    async def tend(self) -> None:
        """Look after the queues; one that cannot be reached is passed over."""
        for pool, queue in self._queues.items():
            try:
                await queue.tend()
            except QueueUnavailable as error:
                self._log.warning("queue_untended", pool=pool, code=error.code)

    async def run(self) -> None:
        """Sweep until cancelled, or not at all where ``sweep_seconds`` is 0.

        An unreachable backend is logged and tried again.
        """
        while self._sweep_seconds:
            try:
                await self.sweep()
                await self.tend()
                await self._exhausted.end()
            except Exception as error:  # noqa: BLE001 - nothing may end the sweeping: jobs would stay lost
                self._log.warning("sweep_failed", kind=type(error).__name__)
            await asyncio.sleep(self._sweep_seconds)


def _behind(last: datetime, start: datetime | None) -> datetime:
    """Return where the next page starts; a page of one single moment is left behind."""
    return last if last != start else last + timedelta(microseconds=1)
