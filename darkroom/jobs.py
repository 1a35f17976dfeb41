"""The job: one frozen record, its states, and the only steps between them.

A record changes by compare-and-set on its ``version``. The functions here make the next record
from the present one; they touch no store. ``attempts`` is the fence: each claim adds one, and a
worker whose attempt is no longer the record's publishes nothing.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import uuid_utils
from pydantic import BaseModel, ConfigDict, Field

from darkroom.errors import IllegalTransition, StaleAttempt
from darkroom.generation import Generation
from darkroom.webhooks import Webhook, WebhookState

TENANT_KEY_DIGITS = 8


class JobState(StrEnum):
    """Where a job is; the words of the Azure REST guidelines for long-running operations."""

    NOT_STARTED = "NotStarted"
    """Accepted; waits in a queue, for the first time or again."""
    RUNNING = "Running"
    """A worker has claimed it."""
    SUCCEEDED = "Succeeded"
    """All images are stored."""
    FAILED = "Failed"
    """Ended without images; ``error`` says why."""
    CANCELED = "Canceled"
    """Ended because somebody asked."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return not TRANSITIONS[self]


class Phase(StrEnum):
    """What is being done right now, finer than the state; for people, never for decisions."""

    QUEUED = "queued"
    LOADING = "loading"
    GENERATING = "generating"
    STORING = "storing"
    DONE = "done"


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.NOT_STARTED: frozenset(
        {JobState.NOT_STARTED, JobState.RUNNING, JobState.FAILED, JobState.CANCELED}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.NOT_STARTED,  # given back: retry or preemption
            JobState.RUNNING,  # progress, or the next attempt after a worker died
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELED,
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
}
"""From each state, the states that a record may be written with next."""


class JobError(BaseModel):
    """Why a job failed, in the shape of the API's errors."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    target: str | None = None


class JobImage(BaseModel):
    """One finished picture. Sides in pixels; ``sha256`` is of the PNG file."""

    model_config = ConfigDict(frozen=True)

    index: int
    width: int
    height: int
    sha256: str
    seed: int


class Usage(BaseModel):
    """What the job took. Seconds; US dollars at the pool's price."""

    model_config = ConfigDict(frozen=True)

    queue_seconds: float = 0.0
    load_seconds: float = 0.0
    gpu_seconds: float = 0.0
    store_seconds: float = 0.0
    cost_usd: float = 0.0

    def rounded(self) -> "Usage":
        """Return the same to a microsecond, and to a millionth of a dollar."""
        return Usage(**{name: round(value, 6) for name, value in self})


class Provenance(BaseModel):
    """What made the pictures."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_revision: str = ""
    image_digest: str = ""
    scheduler: str = ""
    device: str = ""
    libraries: dict[str, str] = Field(default_factory=dict)


class Job(BaseModel):
    """One request, one record, one message.

    ``version`` belongs to the store (an ETag); it changes with every write and is empty before the
    first. ``sent_at`` is set once the queue has confirmed the message; the sweeper re-sends jobs
    without it. ``claim_expires_at`` is when the present attempt, if it is not heard of again, may
    be taken over. ``erased_at`` is when prompt and pictures were taken out of an ended job.
    ``webhook`` is whom to tell of the end. ``partial_images`` is how many previews were asked for,
    and ``preview_step`` the denoising step that the present attempt's last one shows.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    id: str
    tenant: str
    pool: str
    generation: Generation
    status: JobState = JobState.NOT_STARTED
    phase: Phase = Phase.QUEUED
    progress: float = 0.0
    step: int = 0
    attempts: int = 0
    claim_expires_at: datetime | None = None
    cancel_requested: bool = False
    partial_images: int = 0
    preview_step: int | None = None
    images: tuple[JobImage, ...] = ()
    error: JobError | None = None
    usage: Usage = Usage()
    provenance: Provenance | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    estimated_gpu_seconds: float = 0.0
    traceparent: str | None = None
    resubmitted_from: str | None = None
    webhook: Webhook | None = None
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    erased_at: datetime | None = None
    version: str = Field(default="", exclude=True)

    def log_context(self) -> dict[str, Any]:
        """Return the fields that every log line about this job carries."""
        return {"job_id": self.id, "tenant": self.tenant, "attempt": self.attempts}

    def lasted_seconds(self) -> float:
        """Return the time from admission to the end, or to the last change of one that goes on."""
        return ((self.finished_at or self.updated_at) - self.created_at).total_seconds()


def tenant_key(tenant: str) -> str:
    """Return 8 hex digits that stand for a tenant: the start of its SHA-256. Not a secret."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:TENANT_KEY_DIGITS]


def new_job_id(region: str, tenant: str) -> str:
    """Return a fresh id: region code, UUIDv7 (48 bits of time, 74 random bits), tenant key.

    Ids of one region sort by creation time, to the millisecond. The tenant key lets a store that
    keeps a tenant's records together find one by its id alone (docs/decisions/0003). Source of the
    UUID: RFC 9562, section 5.7.
    """
    return f"{region}-{uuid_utils.uuid7().hex}{tenant_key(tenant)}"


def _move(job: Job, status: JobState, now: datetime, **changes: Any) -> Job:
    if status not in TRANSITIONS[job.status]:
        raise IllegalTransition(f"a job that is {job.status} cannot become {status}")
    return job.model_copy(update={"status": status, "updated_at": now, **changes})


def _end(job: Job, status: JobState, now: datetime, **changes: Any) -> Job:
    changes |= {"phase": Phase.DONE, "finished_at": now, "claim_expires_at": None}
    if job.webhook is not None:
        changes["webhook"] = job.webhook.ended(end_event(status))
    return _move(job, status, now, **changes)


def end_event(status: JobState) -> str:
    """Return what the end of a job is called in webhooks: ``job.succeeded`` and so on."""
    return f"job.{status.lower()}"


def is_unannounced(job: Job) -> bool:
    """Whether the job has ended with an event that the webhooks' queue has not confirmed."""
    return job.webhook is not None and job.webhook.state is WebhookState.PENDING


def mark_webhook(job: Job, now: datetime, state: WebhookState) -> Job:
    """Note how far the event of an ended job is. Raises `IllegalTransition` before its end."""
    if job.webhook is None or not job.status.is_terminal:
        raise IllegalTransition(f"a job that is {job.status} has no event to deliver")
    return job.model_copy(update={"webhook": job.webhook.in_state(state), "updated_at": now})


def check_attempt(job: Job, attempt: int) -> None:
    """Raise `StaleAttempt` unless ``attempt`` is running this job at present."""
    if job.status is not JobState.RUNNING or job.attempts != attempt:
        raise StaleAttempt(
            f"attempt {attempt} no longer owns the job: it is {job.status}, attempt {job.attempts}"
        )


def mark_sent(job: Job, now: datetime) -> Job:
    """Note that the queue has confirmed the message. Raises `IllegalTransition` unless it waits."""
    if job.status is not JobState.NOT_STARTED:  # a running job must not be put back by a late note
        raise IllegalTransition(f"a job that is {job.status} does not wait for its message")
    return _move(job, JobState.NOT_STARTED, now, sent_at=now)


def claim(job: Job, now: datetime, claim_seconds: float) -> Job:
    """Begin the next attempt and hold it for ``claim_seconds`` unless renewed."""
    started_at = job.started_at or now
    idle_since = job.claim_expires_at or job.queued_at or job.created_at
    waited = (now - idle_since).total_seconds()
    return _move(
        job,
        JobState.RUNNING,
        now,
        phase=Phase.LOADING,
        progress=0.0,
        step=0,
        preview_step=None,
        attempts=job.attempts + 1,
        claim_expires_at=now + timedelta(seconds=claim_seconds),
        sent_at=job.sent_at or now,  # what was delivered was sent
        started_at=started_at,
        usage=job.usage.model_copy(
            update={"queue_seconds": job.usage.queue_seconds + max(0.0, waited)}
        ),
    )


def is_claimed(job: Job, now: datetime) -> bool:
    """Whether an attempt is running and may still be alive at ``now``."""
    return (
        job.status is JobState.RUNNING
        and job.claim_expires_at is not None
        and job.claim_expires_at > now
    )


def report(
    job: Job,
    attempt: int,
    now: datetime,
    *,
    phase: Phase,
    step: int,
    claim_seconds: float,
    preview_step: int | None = None,
) -> Job:
    """Note how far an attempt is: ``step`` denoising steps done of the generation's count.

    ``preview_step`` is the step that a newly stored preview shows; None when there is no new one.
    """
    check_attempt(job, attempt)
    share = min(1.0, step / max(1, job.generation.num_inference_steps))
    return _move(
        job,
        JobState.RUNNING,
        now,
        phase=phase,
        step=max(step, job.step),
        preview_step=job.preview_step if preview_step is None else preview_step,
        progress=round(max(job.progress, 0.99 * share), 4),  # 1 is said with the pictures stored
        claim_expires_at=now + timedelta(seconds=claim_seconds),
    )


def release(job: Job, attempt: int, now: datetime) -> Job:
    """Give the job back to its queue, for a retry or because the worker must go."""
    check_attempt(job, attempt)
    return _move(
        job,
        JobState.NOT_STARTED,
        now,
        phase=Phase.QUEUED,
        progress=0.0,
        step=0,
        preview_step=None,
        claim_expires_at=None,
        queued_at=now,
    )


def succeed(
    job: Job,
    attempt: int,
    now: datetime,
    *,
    images: Sequence[JobImage],
    usage: Usage,
    provenance: Provenance,
) -> Job:
    """End with pictures. Raises `StaleAttempt` when another attempt owns the job."""
    check_attempt(job, attempt)
    return _end(
        job,
        JobState.SUCCEEDED,
        now,
        progress=1.0,
        step=job.generation.num_inference_steps,
        images=tuple(images),
        usage=usage,
        provenance=provenance,
    )


def fail(job: Job, now: datetime, error: JobError) -> Job:
    """End without pictures. Raises `IllegalTransition` for a job that has ended."""
    return _end(job, JobState.FAILED, now, error=error)


def cancel(job: Job, now: datetime) -> Job:
    """End because somebody asked. Raises `IllegalTransition` for a job that has ended."""
    return _end(job, JobState.CANCELED, now, cancel_requested=True)


def request_cancel(job: Job, now: datetime) -> Job:
    """Cancel: at once if it waits, else by asking the worker; a finished job stays as it is."""
    if job.status.is_terminal or job.cancel_requested:
        return job
    if job.status is JobState.NOT_STARTED:
        return cancel(job, now)
    return job.model_copy(update={"cancel_requested": True, "updated_at": now})


def erase(job: Job, now: datetime) -> Job:
    """Take out what was asked for and what came of it; a job that was erased stays as it is.

    Prompts, the digests of input pictures and the list of images go; the accounting stays (state,
    usage, sizes, steps, seed, tags, times). This is no transition: the job must have ended, and its
    state stays what it is. Raises `IllegalTransition` for a job that has not ended.
    """
    if not job.status.is_terminal:
        raise IllegalTransition(f"a job that is {job.status} cannot be erased: cancel it first")
    if job.erased_at is not None:
        return job
    changes = {
        "generation": job.generation.without_text(),
        "images": (),
        "erased_at": now,
        "updated_at": now,
    }
    return job.model_copy(update=changes)
