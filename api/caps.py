"""How much one tenant may have waiting: a number of jobs, and of estimated GPU seconds.

The records are the truth, so the caps survive every crash and hold for all replicas: nothing is
counted twice or lost, whoever dies. A tenant's count is read at most every `CALM` while it is
under half of a cap, every `CLOSE` above; in between this process adds what it admits itself. So
one process keeps the caps exactly, and with several a tenant can pass them by what the others
admit within `CLOSE`.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from api.errors import QueuedJobsLimit
from darkroom.clock import Clock
from darkroom.jobstores.base import Backlog, JobStore

NOTHING = Backlog()
CALM = timedelta(seconds=1)
CLOSE = timedelta(seconds=0.1)
MAX_TENANTS_KNOWN = 10_000
LONGEST_PAUSE_SECONDS = 60


@dataclass(frozen=True)
class Caps:
    """The most that a tenant may have waiting; 0 is no limit."""

    jobs: int = 0
    gpu_seconds: float = 0.0

    @property
    def are_set(self) -> bool:
        """Whether there is a limit at all."""
        return self.jobs > 0 or self.gpu_seconds > 0

    def share(self, backlog: Backlog) -> float:
        """Return how full the fuller of the two is; 1 is at the cap."""
        jobs = backlog.jobs / self.jobs if self.jobs else 0.0
        seconds = backlog.gpu_seconds / self.gpu_seconds if self.gpu_seconds else 0.0
        return max(jobs, seconds)

    def check(self, backlog: Backlog) -> None:
        """Raise `QueuedJobsLimit` that names the cap which ``backlog`` is over."""
        if self.jobs and backlog.jobs > self.jobs:
            cap, said = "queued_jobs", f"{self.jobs:,} queued jobs"
        elif self.gpu_seconds and backlog.gpu_seconds > self.gpu_seconds:
            cap, said = "queued_gpu_seconds", f"{self.gpu_seconds:,.0f} queued GPU seconds"
        else:
            return
        mean = backlog.gpu_seconds / max(1, backlog.jobs)
        raise QueuedJobsLimit(
            f"your tenant may have {said}, and this job would be over that: wait for some to begin,"
            " or cancel some",
            target=cap,
            retry_after_seconds=min(LONGEST_PAUSE_SECONDS, math.ceil(mean)),
        )


@dataclass
class _Account:
    """What is known of one tenant: the last reading, and what this process did since."""

    read: Backlog = NOTHING
    read_at: datetime | None = None
    admitted: Backlog = NOTHING
    under_way: Backlog = NOTHING
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def total(self) -> Backlog:
        return self.read + self.admitted + self.under_way


class TenantCaps:
    """Keeps each tenant under ``caps``."""

    def __init__(self, jobs: JobStore, caps: Caps, clock: Clock) -> None:
        self._jobs = jobs
        self._caps = caps
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @asynccontextmanager
    async def room_for(self, tenant: str, gpu_seconds: float) -> AsyncIterator[None]:
        """Hold a place while the block records a job; it is given back when the block raises.

        Raises `QueuedJobsLimit`; `StoreUnavailable` when the tenant's jobs cannot be counted.
        """
        if not self._caps.are_set:
            yield
            return
        account = self._account(tenant)
        async with account.reading:  # all wait for one reading, and none goes on without it
            if self._is_due(account):
                await self._read(tenant, account)
        job = Backlog(1, gpu_seconds)
        self._caps.check(account.total + job)
        account.under_way += job
        try:
            yield
            account.admitted += job
        finally:
            account.under_way -= job

    def _is_due(self, account: _Account) -> bool:
        if account.read_at is None:
            return True
        pause = CALM if self._caps.share(account.total) < 0.5 else CLOSE
        return self._clock.now() - account.read_at >= pause

    async def _read(self, tenant: str, account: _Account) -> None:
        now, before = self._clock.now(), account.admitted
        read = await self._jobs.backlog(tenant)
        account.read_at = now
        # What was admitted while the store was read may be in the reading or not: counted again
        # until the next one, which errs on the side of the cap.
        account.read, account.admitted = read, account.admitted - before

    def _account(self, tenant: str) -> _Account:
        if tenant not in self._accounts and len(self._accounts) >= MAX_TENANTS_KNOWN:
            idle = [name for name, one in self._accounts.items() if one.under_way.jobs == 0]
            for name in idle:
                del self._accounts[name]
        return self._accounts.setdefault(tenant, _Account())
