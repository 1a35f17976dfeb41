"""Stores that fail on purpose: wrappers that stand before any adapter and inject faults by seed.

A storage call can be delayed, fail before it took effect, or take effect and then fail, which is
what a lost answer looks like: the caller cannot know. Every fault is written to a ledger file as it
happens, one kind a line, so that a run reports what was really injected, even by processes that
were killed.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from darkroom.errors import StoreUnavailable
from darkroom.imagestores.base import ImageStore
from darkroom.jobs import Job
from darkroom.jobstores.base import Created, Idempotency, JobFilter, JobStore, Page

T = TypeVar("T")


class Faults:
    """Decides, call by call, what goes wrong. ``rate`` is the share of calls that are hit."""

    def __init__(self, seed: int, rate: float, ledger: Path) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self._ledger = ledger

    def note(self, kind: str) -> None:
        """Append one injected fault to the ledger, in one write so that processes do not mix."""
        descriptor = os.open(self._ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{kind}\n".encode())
        os.close(descriptor)

    async def around(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call, perhaps late, perhaps not at all, perhaps without its answer."""
        if self._random.random() >= self._rate:
            return await call()
        kind = self._random.choice(("storage_delayed", "storage_failed", "storage_answer_lost"))
        self.note(kind)
        if kind == "storage_delayed":
            await asyncio.sleep(self._random.uniform(0.05, 0.5))
            return await call()
        if kind == "storage_answer_lost":
            await call()
        raise StoreUnavailable("injected by the chaos run")


class FaultyJobStore(JobStore):
    """A job store before which faults happen."""

    def __init__(self, inner: JobStore, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        return await self._faults.around(lambda: self._inner.create(job, idempotency))

    async def get(self, job_id: str) -> Job:
        return await self._faults.around(lambda: self._inner.get(job_id))

    async def list(
        self, tenant: str, filters: JobFilter, *, limit: int = 20, cursor: str | None = None
    ) -> Page:
        return await self._faults.around(
            lambda: self._inner.list(tenant, filters, limit=limit, cursor=cursor)
        )

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        return await self._faults.around(lambda: self._inner.compare_and_set(job, expected_version))

    async def unsent(
        self, created_before: datetime, limit: int = 100, created_from: datetime | None = None
    ) -> Sequence[Job]:
        return await self._faults.around(
            lambda: self._inner.unsent(created_before, limit, created_from)
        )

    async def close(self) -> None:
        await self._inner.close()


class FaultyImageStore(ImageStore):
    """An image store before which faults happen."""

    def __init__(self, inner: ImageStore, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        await self._faults.around(lambda: self._inner.put(job_id, name, png, attempt=attempt))

    async def get(self, job_id: str, name: str) -> bytes:
        return await self._faults.around(lambda: self._inner.get(job_id, name))

    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str | None:
        return await self._inner.link(job_id, name, lifetime)

    async def delete(self, job_id: str) -> None:
        await self._faults.around(lambda: self._inner.delete(job_id))

    async def close(self) -> None:
        await self._inner.close()
