"""A worker's hold on a job's record: the attempt, and every change that it makes.

The attempt number is the fence. Each change is a compare-and-set; when somebody else wrote first,
the record is read again and the change is made anew from what it says now, so a change by an
attempt that was overtaken raises `StaleAttempt` and writes nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from darkroom.catalog import Pool
from darkroom.clock import Clock
from darkroom.errors import VersionConflict
from darkroom.jobs import Job, Phase, Usage, claim, report
from darkroom.jobstores.base import JobStore


@dataclass
class Spent:
    """Seconds that an attempt has spent in the engine. Added to by the engine's thread."""

    load_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def on_top_of(self, usage: Usage, pool: Pool) -> Usage:
        """Return ``usage`` with these seconds added, at the price of ``pool``."""
        gpu_seconds = usage.gpu_seconds + self.gpu_seconds
        changes = {
            "load_seconds": usage.load_seconds + self.load_seconds,
            "gpu_seconds": gpu_seconds,
            "cost_usd": pool.cost_usd(gpu_seconds),
        }
        return usage.model_copy(update=changes)


class Claim:
    """One attempt of one job. ``job`` is the record as last read or written.

    ``spent`` is what the attempt has cost so far, to be written with its last change.

    Changes wait for one another, so that renewal and progress never race this worker's own finish.
    """

    def __init__(self, store: JobStore, job: Job, clock: Clock, claim_seconds: float) -> None:
        self.job = job
        self.attempt = job.attempts
        self.spent = Spent()
        self._store = store
        self._clock = clock
        self._claim_seconds = claim_seconds
        self._lock = asyncio.Lock()

    async def change(self, step: Callable[[Job], Job]) -> Job:
        """Write ``step`` of the record.

        Raises what ``step`` raises (`StaleAttempt`, `IllegalTransition`), `JobNotFound`,
        `StoreUnavailable`.
        """
        async with self._lock:
            while True:
                try:
                    self.job = await self._store.compare_and_set(step(self.job), self.job.version)
                    return self.job
                except VersionConflict:
                    self.job = await self._store.get(self.job.id)

    async def report(
        self, phase: Phase | None = None, step: int = 0, preview_step: int | None = None
    ) -> Job:
        """Write how far the attempt is, which extends the claim. Without ``phase``, it stays."""
        return await self.change(
            lambda job: report(
                job,
                self.attempt,
                self._clock.now(),
                phase=phase or job.phase,
                step=step,
                claim_seconds=self._claim_seconds,
                preview_step=preview_step,
            )
        )

    async def refresh(self) -> Job:
        """Read the record again."""
        async with self._lock:
            self.job = await self._store.get(self.job.id)
            return self.job


async def take(
    store: JobStore,
    job_id: str,
    clock: Clock,
    claim_seconds: float,
    may_start: Callable[[Job], None],
) -> Claim:
    """Begin the next attempt of a job.

    ``may_start`` is shown the record and raises to refuse. Raises `JobNotFound`,
    `StoreUnavailable`.
    """
    while True:
        job = await store.get(job_id)
        may_start(job)
        try:
            claimed = claim(job, clock.now(), claim_seconds)
            written = await store.compare_and_set(claimed, job.version)
        except VersionConflict:
            continue
        return Claim(store, written, clock, claim_seconds)
