"""Watches one job while it denoises: writes its progress, and sees why it should stop.

After each step the engine's thread pokes the event loop and waits for nothing. The loop then writes
progress or reads the record, and sets the job's stop signal, which that thread reads at each step.
So a cancel takes effect within two steps.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from darkroom.clock import Clock
from darkroom.errors import DeadlineExceeded, JobNotFound, StaleAttempt, StoreUnavailable
from darkroom.jobs import Phase, check_attempt
from worker.background import beside
from worker.claims import Claim
from worker.stopping import JobCanceled, StopSignal


@dataclass(frozen=True)
class WatchPace:
    """Least seconds between two progress writes, and between two looks for a cancel."""

    progress_seconds: float
    cancel_check_seconds: float

    def among(self, jobs: int) -> "WatchPace":
        """The pace of one of several jobs of a batch, so that they look as often as one would."""
        return WatchPace(self.progress_seconds, self.cancel_check_seconds * jobs)


class Watch:
    """The progress of one claim; sets ``stop`` when it is canceled, overtaken or out of time."""

    def __init__(self, claim: Claim, stop: StopSignal, clock: Clock, pace: WatchPace) -> None:
        self._claim = claim
        self._stop = stop
        self._clock = clock
        self._pace = pace
        self._stepped = asyncio.Event()
        self._step = 0
        self._wrote_at: datetime | None = None
        self._read_at: datetime | None = None

    def note(self, share: float) -> None:
        """Note that so much of the job's denoising is done, of 1. On the event loop."""
        self._step = round(share * self._claim.job.generation.num_inference_steps)
        self._stepped.set()

    async def run(self) -> None:
        """Look after the job at each step, until cancelled."""
        while True:
            await self._stepped.wait()
            self._stepped.clear()
            try:
                await self._look()
            except (StaleAttempt, JobNotFound) as error:
                self._stop.set(error)
            except StoreUnavailable:
                continue  # the next step looks again; the finish insists

    async def _look(self) -> None:
        now = self._clock.now()
        if _due(self._wrote_at, now, self._pace.progress_seconds):
            self._wrote_at = self._read_at = now
            await self._claim.report(Phase.GENERATING, self._step)
        elif _due(self._read_at, now, self._pace.cancel_check_seconds):
            self._read_at = now
            check_attempt(await self._claim.refresh(), self._claim.attempt)
        refuse_if_over(self._claim, self._stop, now)


def refuse_if_over(claim: Claim, stop: StopSignal, now: datetime) -> None:
    """Set ``stop`` when the record asks for a cancel or its deadline has passed."""
    if claim.job.cancel_requested:
        stop.set(JobCanceled())
    elif claim.job.deadline_at is not None and claim.job.deadline_at <= now:
        stop.set(DeadlineExceeded("the job's deadline passed while it ran"))


def _due(last: datetime | None, now: datetime, period_seconds: float) -> bool:
    return last is None or (now - last).total_seconds() >= period_seconds


@asynccontextmanager
async def watched(
    claim: Claim, stop: StopSignal, clock: Clock, pace: WatchPace
) -> AsyncIterator[Watch]:
    """Watch ``claim`` while the block runs."""
    watch = Watch(claim, stop, clock, pace)
    async with beside(watch.run(), f"watch-{claim.job.id}"):
        yield watch
