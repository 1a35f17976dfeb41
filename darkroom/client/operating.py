"""The calls for jobs that have ended, for what was used, and for operators."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from darkroom.client.reports import (
    DeadLetterDetail,
    DeadLetterPage,
    DeadLetterView,
    ResubmitOutcome,
    UsageReport,
)
from darkroom.client.views import JobView

V = TypeVar("V", bound=BaseModel)


class OperatingCalls(ABC):
    """What `Client` can do beyond submitting and following jobs. Raises as it does."""

    def resubmit(self, job_id: str) -> JobView:
        """Run a failed or canceled job again; return the new job, the same when asked again."""
        return self._ask(JobView, "POST", f"{_job(job_id)}:resubmit")

    def replay_webhook(self, job_id: str) -> JobView:
        """Have the event of a job that has ended delivered once more, under the same id."""
        return self._ask(JobView, "POST", f"{_job(job_id)}:replay-webhook")

    def erase(self, job_id: str) -> None:
        """Delete the pictures and the prompt of a job that has ended."""
        self._tell("DELETE", _job(job_id))

    def usage(self, *, start: datetime | None = None, end: datetime | None = None) -> UsageReport:
        """Return what was used by jobs created after ``start`` up to ``end``: 31 days at most.

        The last 24 hours unless given; both times need a zone.
        """
        times = {"from": start, "to": end}
        params = {name: moment.isoformat() for name, moment in times.items() if moment}
        return self._ask(UsageReport, "GET", "/v1/usage", params)

    def dead_letters(
        self, *, pool: str | None = None, limit: int = 20
    ) -> tuple[DeadLetterView, ...]:
        """Return the oldest messages that were set aside, of one pool or of all. For operators."""
        params = {"limit": str(limit)} | ({"pool": pool} if pool is not None else {})
        return self._ask(DeadLetterPage, "GET", "/v1/dead-letters", params).value

    def dead_letter(self, pool: str, message_id: str) -> DeadLetterDetail:
        """Return one of them with its message and its job's state."""
        return self._ask(DeadLetterDetail, "GET", _aside(pool, message_id))

    def resubmit_dead_letter(self, pool: str, message_id: str) -> ResubmitOutcome:
        """Run it again: a failed job as a new one, any other as the same message."""
        return self._ask(ResubmitOutcome, "POST", f"{_aside(pool, message_id)}:resubmit")

    def discard_dead_letter(self, pool: str, message_id: str) -> None:
        """Remove it for good; a job that had not ended, and is not running, fails."""
        self._tell("POST", f"{_aside(pool, message_id)}:discard")

    @abstractmethod
    def _ask(
        self, kind: type[V], method: str, url: str, params: Mapping[str, str] | None = None
    ) -> V:
        """Send a request and read its answer."""

    @abstractmethod
    def _tell(self, method: str, url: str) -> None:
        """Send a request whose answer is empty."""


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _aside(pool: str, message_id: str) -> str:
    return f"/v1/dead-letters/{quote(pool, safe='')}/{quote(message_id, safe='')}"
