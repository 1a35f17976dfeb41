"""Sends again what was recorded but never confirmed by a queue (invariant 4).

Several API replicas may sweep at once: a second message of one job is harmless.
"""

import asyncio
from datetime import timedelta

from api.admission import Admission
from darkroom.clock import Clock
from darkroom.jobs import Job
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger
from darkroom.metrics import ApiMetrics

PAGE = 100


class Sweeper:
    """Looks every ``sweep_seconds`` for jobs older than ``unsent_seconds`` without a send."""

    def __init__(
        self,
        *,
        admission: Admission,
        jobs: JobStore,
        clock: Clock,
        metrics: ApiMetrics,
        sweep_seconds: float,
        unsent_seconds: float,
    ) -> None:
        self._admission = admission
        self._jobs = jobs
        self._clock = clock
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._unsent = timedelta(seconds=unsent_seconds)
        self._log = get_logger()

    async def sweep(self) -> int:
        """Send the jobs that wait unsent; return how many the queues took.

        Raises `StoreUnavailable` when the jobs cannot be read.
        """
        total = 0
        while True:
            jobs = await self._jobs.unsent(self._clock.now() - self._unsent, PAGE)
            sent = [job for job in jobs if await self._send(job)]
            total += len(sent)
            if len(jobs) < PAGE or not sent:
                return total

    async def _send(self, job: Job) -> bool:
        after = await self._admission.send(job)
        if after.version == job.version:
            return False
        self._metrics.jobs_resent.labels(job.pool).inc()
        self._log.info("resent", pool=job.pool, **job.log_context())
        return True

    async def run(self) -> None:
        """Sweep until cancelled. An unreachable backend is logged and tried again."""
        while True:
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 - nothing may end the sweeping: jobs would stay lost
                self._log.warning("sweep_failed", kind=type(error).__name__)
            await asyncio.sleep(self._sweep_seconds)
