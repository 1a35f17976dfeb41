"""Where a waiting job stands in its pool's line, when it may begin, and whether the line is full.

All of it is an estimate, read at most once a second per pool whatever is asked. A store that lists
who waits (`JobStore.line`) makes positions exact to that second; elsewhere a position is at most
what the queue holds, less what this process admitted after the job.

When: the estimated GPU seconds of all who stand before, over how many a second the pool works off
with all of its replicas; what jobs in one call gain is the catalog's word. Jobs that run
already are not counted, nor is the start of new replicas.
"""

import asyncio
import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate

from api.errors import DeadlineCannotBeMet, QueueFull
from darkroom.catalog import Catalog
from darkroom.clock import Clock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.jobs import Job, JobState
from darkroom.jobstores.base import JobStore, Waiting
from darkroom.queues.base import JobQueue

MAX_AGE = timedelta(seconds=1)
MAX_LISTED = 2_000  # who stands further back has a position by count
LONGEST_PAUSE_SECONDS = 300


@dataclass(frozen=True)
class Place:
    """``position`` is 1 for the next to begin; ``eta_seconds`` until it may."""

    position: int
    eta_seconds: float


@dataclass
class _Line:
    """One pool's line as it was last read, with what this process has admitted since."""

    listed: list[Waiting] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    """GPU seconds of the first 1, 2, ... of ``listed``."""
    is_complete: bool = True
    total: int = 0
    read_at: datetime | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LISTED))
    """When this process admitted jobs, in order: who stands behind."""
    mean_seconds: float = 0.0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, listed: Sequence[Waiting] | None, total: int, now: datetime) -> None:
        """Replace what was read before."""
        self.listed = list(listed or ())
        self.sums = list(accumulate(one.gpu_seconds for one in self.listed))
        self.is_complete = listed is not None and len(self.listed) < MAX_LISTED
        self.total = total
        self.read_at = now

    def join(self, one: Waiting) -> None:
        """Add a job at the end."""
        self.recent.append(one.created_at)
        mean = self.mean_seconds or one.gpu_seconds
        self.mean_seconds = 0.9 * mean + 0.1 * one.gpu_seconds
        if not self.listed or one > self.listed[-1]:
            self.total += 1
            if self.is_complete:
                self.listed.append(one)
                self.sums.append((self.sums[-1] if self.sums else 0.0) + one.gpu_seconds)

    def before(self, one: Waiting) -> tuple[int, float]:
        """Return how many stand before a job, and their GPU seconds."""
        index = bisect_left(self.listed, one)
        if self.is_complete or index < len(self.listed):
            return index, self.sums[index - 1] if index else 0.0
        behind = len(self.recent) - bisect_right(self.recent, one.created_at)
        count = max(len(self.listed), self.total - behind - 1)
        mean = self.sums[-1] / len(self.sums) if self.sums else self.mean_seconds
        return count, count * (mean or one.gpu_seconds)


class PoolLines:
    """The lines of all pools; at most ``max_jobs`` may wait in one, 0 is no limit."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        jobs: JobStore,
        queues: Mapping[str, JobQueue],
        clock: Clock,
        max_jobs: int = 0,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._queues = queues
        self._clock = clock
        self._max_jobs = max_jobs
        self._lines: dict[str, _Line] = {name: _Line() for name in queues}

    async def place(self, job: Job) -> Place | None:
        """Return where ``job`` stands; None unless it waits in a pool of the catalog."""
        if job.status is not JobState.NOT_STARTED or job.pool not in self._lines:
            return None
        line = await self._read(job.pool)
        count, gpu_seconds = line.before(_waiting(job))
        return Place(count + 1, round(gpu_seconds / self._speed(job.pool), 1))

    async def check(self, job: Job) -> None:
        """Raise `QueueFull` or `DeadlineCannotBeMet` if ``job`` may not join its line now.

        With nobody before it a job is never late: the estimate of its own time is not trusted so
        far. What cannot be read refuses nobody.
        """
        line = await self._read(job.pool)
        count, gpu_seconds = line.before(_waiting(job))
        wait = gpu_seconds / self._speed(job.pool)
        if self._max_jobs and line.total >= self._max_jobs:
            raise QueueFull(
                f"{self._max_jobs:,} jobs wait in pool {job.pool}, which is as many as may",
                retry_after_seconds=_pause(wait / 10),
            )
        if job.deadline_at is None or count == 0:
            return
        needed = wait + job.estimated_gpu_seconds
        if needed > (job.deadline_at - job.created_at).total_seconds():
            raise DeadlineCannotBeMet(
                f"the {count:,} jobs before this one take about {math.ceil(wait):,} seconds, so it"
                " cannot end within deadline_seconds",
                target="deadline_seconds",
                retry_after_seconds=_pause(wait),
            )

    def joined(self, job: Job) -> None:
        """Note a job that this process has recorded, until the line is read again."""
        if job.status is JobState.NOT_STARTED and job.pool in self._lines:
            self._lines[job.pool].join(_waiting(job))

    def _speed(self, pool_name: str) -> float:
        """GPU seconds, as jobs alone would take them, that the whole pool does in a second."""
        pool = self._catalog.pool(pool_name)
        return pool.replicas.max * pool.batch_speedup

    async def _read(self, pool: str) -> _Line:
        line = self._lines[pool]
        async with line.reading:
            now = self._clock.now()
            if line.read_at is not None and now - line.read_at < MAX_AGE:
                return line
            try:
                listed = await self._jobs.line(pool, MAX_LISTED)
                if listed is None or len(listed) == MAX_LISTED:
                    depth = await self._queues[pool].depth()
                    total = depth.active + depth.scheduled
                else:
                    total = len(listed)
            except (StoreUnavailable, QueueUnavailable):  # an estimate must not refuse anybody
                line.read_at = now
                return line
            line.take(listed, total, now)
        return line


def _waiting(job: Job) -> Waiting:
    return Waiting(job.created_at.timestamp(), job.id, job.estimated_gpu_seconds)


def _pause(seconds: float) -> int:
    return max(1, min(LONGEST_PAUSE_SECONDS, math.ceil(seconds)))
