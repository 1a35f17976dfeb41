"""What both clients can do beyond submitting and following jobs. Raises as they do."""

from abc import ABC, abstractmethod
from datetime import datetime

import httpx

from darkroom.client import operations
from darkroom.client.calls import Call, read
from darkroom.client.reports import (
    DeadLetterDetail,
    DeadLetterPage,
    DeadLetterView,
    ResubmitOutcome,
    UsageReport,
)
from darkroom.client.views import JobView


class OperatingCalls(ABC):
    """The calls for jobs that have ended, for what was used, and for operators."""

    def resubmit(self, job_id: str) -> JobView:
        """Run a failed or canceled job again; return the new job, the same when asked again."""
        return read(JobView, self._send(operations.resubmit(job_id)))

    def replay_webhook(self, job_id: str) -> JobView:
        """Have the event of a job that has ended delivered once more, under the same id."""
        return read(JobView, self._send(operations.replay_webhook(job_id)))

    def erase(self, job_id: str) -> None:
        """Delete the pictures and the prompt of a job that has ended."""
        self._send(operations.erase(job_id))

    def usage(self, *, start: datetime | None = None, end: datetime | None = None) -> UsageReport:
        """Return what was used by jobs created after ``start`` up to ``end``: 31 days at most.

        The last 24 hours unless given; both times need a zone.
        """
        return read(UsageReport, self._send(operations.usage(start, end)))

    def dead_letters(
        self, *, pool: str | None = None, limit: int = 20
    ) -> tuple[DeadLetterView, ...]:
        """Return the oldest messages that were set aside, of one pool or of all. For operators."""
        return read(DeadLetterPage, self._send(operations.dead_letters(pool, limit))).value

    def dead_letter(self, pool: str, message_id: str) -> DeadLetterDetail:
        """Return one of them with its message and its job's state."""
        return read(DeadLetterDetail, self._send(operations.dead_letter(pool, message_id)))

    def resubmit_dead_letter(self, pool: str, message_id: str) -> ResubmitOutcome:
        """Run it again: a failed job as a new one, any other as the same message."""
        return read(ResubmitOutcome, self._send(operations.resubmit_dead_letter(pool, message_id)))

    def discard_dead_letter(self, pool: str, message_id: str) -> None:
        """Remove it for good; a job that had not ended, and is not running, fails."""
        self._send(operations.discard_dead_letter(pool, message_id))

    @abstractmethod
    def _send(self, call: Call, *, stream: bool = False) -> httpx.Response:
        """Return an answer that is no refusal."""


class AsyncOperatingCalls(ABC):
    """The same for asyncio."""

    async def resubmit(self, job_id: str) -> JobView:
        """Run a failed or canceled job again; return the new job, the same when asked again."""
        return read(JobView, await self._send(operations.resubmit(job_id)))

    async def replay_webhook(self, job_id: str) -> JobView:
        """Have the event of a job that has ended delivered once more, under the same id."""
        return read(JobView, await self._send(operations.replay_webhook(job_id)))

    async def erase(self, job_id: str) -> None:
        """Delete the pictures and the prompt of a job that has ended."""
        await self._send(operations.erase(job_id))

    async def usage(
        self, *, start: datetime | None = None, end: datetime | None = None
    ) -> UsageReport:
        """Return what was used by jobs created after ``start`` up to ``end``: 31 days at most.

        The last 24 hours unless given; both times need a zone.
        """
        return read(UsageReport, await self._send(operations.usage(start, end)))

    async def dead_letters(
        self, *, pool: str | None = None, limit: int = 20
    ) -> tuple[DeadLetterView, ...]:
        """Return the oldest messages that were set aside, of one pool or of all. For operators."""
        return read(DeadLetterPage, await self._send(operations.dead_letters(pool, limit))).value

    async def dead_letter(self, pool: str, message_id: str) -> DeadLetterDetail:
        """Return one of them with its message and its job's state."""
        return read(DeadLetterDetail, await self._send(operations.dead_letter(pool, message_id)))

    async def resubmit_dead_letter(self, pool: str, message_id: str) -> ResubmitOutcome:
        """Run it again: a failed job as a new one, any other as the same message."""
        call = operations.resubmit_dead_letter(pool, message_id)
        return read(ResubmitOutcome, await self._send(call))

    async def discard_dead_letter(self, pool: str, message_id: str) -> None:
        """Remove it for good; a job that had not ended, and is not running, fails."""
        await self._send(operations.discard_dead_letter(pool, message_id))

    @abstractmethod
    async def _send(self, call: Call, *, stream: bool = False) -> httpx.Response:
        """Return an answer that is no refusal."""
