"""What a tenant has used over a time, added up from its job records.

Cost: one page of `PAGE` records after another, newest first, at most `MAX_PAGES` of them; never
more, however many jobs there are. Where that is not enough the sum says so: ``truncated``, with
``counted_from`` as the place to go on from.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from darkroom.errors import InvalidInput
from darkroom.jobs import Job, JobState
from darkroom.jobstores.base import MAX_PAGE_SIZE, JobFilter, JobStore

PAGE = MAX_PAGE_SIZE
MAX_PAGES = 100
MAX_RANGE = timedelta(days=31)
FIRST_TIME = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class ModelUsage:
    """The sums of one model: seconds, US dollars, and jobs by status."""

    gpu_seconds: float = 0.0
    cost_usd: float = 0.0
    jobs: Counter[JobState] = field(default_factory=Counter)

    def add(self, job: Job) -> None:
        """Count one job."""
        self.gpu_seconds += job.usage.gpu_seconds
        self.cost_usd += job.usage.cost_usd
        self.jobs[job.status] += 1


@dataclass(frozen=True)
class TenantUsage:
    """The sums by model of the jobs created after ``start``, up to and with ``end``.

    ``truncated``: there were too many records, and only jobs created at ``counted_from`` or later
    are counted.
    """

    start: datetime
    end: datetime
    models: dict[str, ModelUsage]
    truncated: bool
    counted_from: datetime


def check_end(end: datetime) -> None:
    """Raise `InvalidInput` for a time before `FIRST_TIME`, from which nothing can be taken."""
    if end < FIRST_TIME:
        raise InvalidInput(f"to must be {FIRST_TIME.date()} or later", target="to")


def check_range(start: datetime, end: datetime) -> None:
    """Raise `InvalidInput` unless ``start`` is before ``end``, by at most `MAX_RANGE`."""
    check_end(end)
    if not start < end:
        raise InvalidInput("from must be before to", target="from")
    if end - start > MAX_RANGE:
        raise InvalidInput(f"from may be at most {MAX_RANGE.days} days before to", target="from")


async def usage_of(store: JobStore, tenant: str, start: datetime, end: datetime) -> TenantUsage:
    """Add up the tenant's jobs of a time. Raises `InvalidInput`, `StoreUnavailable`."""
    check_range(start, end)
    models: defaultdict[str, ModelUsage] = defaultdict(ModelUsage)
    oldest, cursor = end, None
    for _ in range(MAX_PAGES):
        page = await store.list(tenant, JobFilter(created_after=start), limit=PAGE, cursor=cursor)
        for job in page.jobs:
            oldest = min(oldest, job.created_at)
            if job.created_at <= end:
                models[job.generation.model].add(job)
        cursor = page.next_cursor
        if cursor is None:
            return TenantUsage(start, end, dict(models), truncated=False, counted_from=start)
    return TenantUsage(start, end, dict(models), truncated=True, counted_from=oldest)
