"""Answers about what was used, and about what was set aside; frozen values like `views`."""

from datetime import datetime
from typing import Any

from pydantic import AliasChoices, Field

from darkroom.client.views import ErrorView, View
from darkroom.jobs import JobState


class ModelUsageView(View):
    """One model's share of a time; ``jobs`` counts by status."""

    model: str
    gpu_seconds: float
    cost_usd: float
    jobs: dict[JobState, int] = Field(default_factory=dict)


class UsageReport(View):
    """The tenant's sums over a time. ``truncated``: only from ``counted_from`` on."""

    start: datetime = Field(validation_alias=AliasChoices("from", "start"))
    end: datetime = Field(validation_alias=AliasChoices("to", "end"))
    gpu_seconds: float
    cost_usd: float
    jobs: int
    models: tuple[ModelUsageView, ...] = ()
    truncated: bool = False
    counted_from: datetime


class DeadLetterView(View):
    """A message that was set aside, and why."""

    message_id: str
    pool: str
    reason: str
    description: str = ""
    delivery_count: int
    enqueued_at: datetime
    job_id: str | None = None
    tenant: str | None = None
    model: str | None = None
    job_status: JobState | None = None


class RecordView(View):
    """What the record of a dead letter's job says."""

    id: str
    status: JobState
    attempts: int
    error: ErrorView | None = None
    created_at: datetime
    finished_at: datetime | None = None


class DeadLetterDetail(DeadLetterView):
    """A dead letter with its message, or why that cannot be read, and its job."""

    properties: dict[str, str] = Field(default_factory=dict)
    message: dict[str, Any] | None = None
    unreadable: str | None = None
    job: RecordView | None = None


class DeadLetterPage(View):
    """The oldest dead letters."""

    value: tuple[DeadLetterView, ...]


class ResubmitOutcome(View):
    """``admitted`` with the new job's id, or ``returned``: the same message waits again."""

    outcome: str
    job_id: str | None = None
