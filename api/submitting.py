"""What every way in does with a request: read it, admit it, and count it if it is refused."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Header, Request

from api.auth.base import Caller
from api.documentation import IDEMPOTENCY_KEY
from api.errors import JobFailed, JobTimedOut, status_of
from api.headers import KEY_PATTERN, idempotency_key
from api.state import ApiState
from darkroom.errors import DarkroomError, UnsafeContent
from darkroom.generation import GenerationRequest
from darkroom.jobs import Job, JobState
from darkroom.tracing import current_traceparent, span

IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description=IDEMPOTENCY_KEY,
        json_schema_extra={"pattern": KEY_PATTERN},
    ),
]


async def submit_job(
    request: Request,
    caller: Caller,
    state: ApiState,
    reading: Awaitable[GenerationRequest],
    idempotency_header: str | None,
) -> Job:
    """Admit what ``reading`` gives. Raises what it and `Admission.submit` raise."""
    incoming = None if current_traceparent() else request.headers.get("traceparent")
    with refusals_counted(state), span("admit", traceparent=incoming):
        body = await reading
        key = idempotency_key(idempotency_header)
        return await state.admission.submit(
            caller.tenant, body, idempotency_key=key, traceparent=current_traceparent()
        )


async def pictures_of(
    request: Request,
    caller: Caller,
    state: ApiState,
    reading: Awaitable[GenerationRequest],
    idempotency_header: str | None,
) -> Job:
    """Admit, and return the job once it has its pictures: for callers who wait in one request.

    Raises `JobTimedOut` after ``sync_wait_seconds`` (the job goes on, and its id is in the
    message), `JobFailed` or `UnsafeContent` for
    one that ended without pictures, and what `submit_job` raises.
    """
    job = await submit_job(request, caller, state, reading, idempotency_header)
    seconds = state.settings.sync_wait_seconds
    job = await state.watcher.wait(job, is_over, seconds)
    if job.status is JobState.SUCCEEDED:
        return job
    if not job.status.is_terminal:
        raise JobTimedOut(job.id, seconds)
    if job.error is None:
        raise JobFailed(job.id, "Canceled", "somebody canceled it")
    if job.error.code == UnsafeContent.code:
        raise UnsafeContent(job.error.message)
    raise JobFailed(job.id, job.error.code, job.error.message)


def is_over(job: Job) -> bool:
    """Whether nothing can happen to the job any more."""
    return job.status.is_terminal


@contextmanager
def refusals_counted(state: ApiState) -> Iterator[None]:
    """Count what is refused inside the block, by its code."""
    try:
        yield
    except DarkroomError as error:
        code = error.code if status_of(error) < 500 or status_of(error) == 503 else "InternalError"
        state.metrics.jobs_refused.labels(code).inc()
        raise
