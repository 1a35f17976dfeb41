"""The JobStore port: the one record of each job.

Consistency
    Every write but `create` is conditional on the version that was read; of two writers with the
    same version exactly one wins, the other gets `VersionConflict`. A read sees every write that
    returned before it began. ``create`` and its idempotency entry are one atomic write.
Durability
    A write that returned survives the death of this process.
Cost
    `get`, `create`, `compare_and_set` and a page of `list` cost the same however many jobs exist;
    `backlog` and `line` grow with what waits, up to a bound that the adapter states.
Errors
    `JobNotFound`, `VersionConflict`, `IdempotencyKeyReused`; `StoreUnavailable` when the store
    cannot be reached after the adapter's own retries.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from darkroom.jobs import Job, JobState

IDEMPOTENCY_LIFETIME = timedelta(hours=24)
MAX_PAGE_SIZE = 100


@dataclass(frozen=True)
class Idempotency:
    """A caller's key, and the SHA-256 (hex) of what was asked under it.

    Keys are per tenant and live for `IDEMPOTENCY_LIFETIME` after the job was created.
    """

    key: str
    fingerprint: str


@dataclass(frozen=True)
class Created:
    """What `create` did: ``is_new`` is false when the key had already made this job."""

    job: Job
    is_new: bool


@dataclass(frozen=True)
class JobFilter:
    """Which of a tenant's jobs to list; unset means any. ``tag`` is (name, value)."""

    status: JobState | None = None
    model: str | None = None
    created_after: datetime | None = None
    tag: tuple[str, str] | None = None

    def matches(self, job: Job) -> bool:
        """Whether the job passes every filter that is set."""
        return (
            (self.status is None or job.status is self.status)
            and (self.model is None or job.generation.model == self.model)
            and (self.created_after is None or job.created_at > self.created_after)
            and (self.tag is None or job.tags.get(self.tag[0]) == self.tag[1])
        )


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first. ``next_cursor`` continues after the last one; None at the end.

    A filtered page may be short, even empty, and still have a cursor: a store reads a bounded
    number of records per page.
    """

    jobs: Sequence[Job]
    next_cursor: str | None


@dataclass(frozen=True)
class Backlog:
    """How many jobs wait, and the sum of their estimated GPU seconds."""

    jobs: int = 0
    gpu_seconds: float = 0.0

    def __add__(self, other: "Backlog") -> "Backlog":
        return Backlog(self.jobs + other.jobs, self.gpu_seconds + other.gpu_seconds)

    def __sub__(self, other: "Backlog") -> "Backlog":
        return Backlog(self.jobs - other.jobs, self.gpu_seconds - other.gpu_seconds)


class Waiting(NamedTuple):
    """A job in a pool's line: seconds since 1970, id, estimated GPU seconds. Sorts by age."""

    created_at: float
    job_id: str
    gpu_seconds: float


class JobStore(ABC):
    """All job records."""

    @abstractmethod
    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Store a new record; with a key that is known, return the job that it made instead.

        The returned job carries its ``version``. Raises `IdempotencyKeyReused` when the key was
        used with another fingerprint.
        """

    @abstractmethod
    async def get(self, job_id: str) -> Job:
        """Return the record with its ``version``. Raises `JobNotFound`."""

    @abstractmethod
    async def list(
        self, tenant: str, filters: JobFilter, *, limit: int = 20, cursor: str | None = None
    ) -> Page:
        """Return a page of the tenant's jobs, newest first.

        ``limit`` is 1 to `MAX_PAGE_SIZE`. ``cursor`` is an earlier page's; raises `InvalidInput`
        with target ``cursor`` for anything else.
        """

    @abstractmethod
    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        """Write ``job`` if the stored version is still ``expected_version``.

        Returns the job with its new version. Raises `VersionConflict`, `JobNotFound`.
        """

    @abstractmethod
    async def unsent(
        self, created_before: datetime, limit: int = 100, created_from: datetime | None = None
    ) -> Sequence[Job]:
        """Return up to ``limit`` jobs that wait without a confirmed send, oldest first.

        With ``created_from``, only those created then or later.
        """

    @abstractmethod
    async def unannounced(self, ended_before: datetime, limit: int = 100) -> Sequence[Job]:
        """Return up to ``limit`` jobs whose end waits to be told to a webhook, oldest end first.

        Costs nothing for jobs without a webhook.
        """

    @abstractmethod
    async def backlog(self, tenant: str) -> Backlog:
        """Count the tenant's jobs that are NotStarted, in every pool."""

    async def line(self, pool: str, limit: int) -> Sequence[Waiting] | None:
        """Return the pool's jobs that are NotStarted, oldest first, up to ``limit``.

        None from a store that would have to read every tenant's records for it.
        """
        return None

    async def close(self) -> None:
        """Release connections."""
        return None
