"""For operators: the messages that were set aside. No prompt text in any answer."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dead_letters import SetAside
from api.dependencies import Operator, State
from api.documentation import refusals
from darkroom.jobs import JobError, JobState
from darkroom.jobstores.base import MAX_PAGE_SIZE
from darkroom.messages import JobMessage

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"], dependencies=[Operator])
PoolName = Annotated[str, Path(description="The pool whose queue set it aside.")]
MessageId = Annotated[str, Path(description="The message's id, as the list gives it.")]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeadLetterBody(_Body):
    """A message that was set aside, and why."""

    message_id: str
    pool: str
    reason: str = Field(description="An error code, or the broker's own reason.")
    description: str
    delivery_count: int
    enqueued_at: datetime
    job_id: str | None = Field(description="Of the message, or of the record with its id.")
    tenant: str | None
    model: str | None
    job_status: JobState | None = Field(description="Null where the job has no record.")


class DeadLetterPage(_Body):
    """Some dead letters, oldest first."""

    value: list[DeadLetterBody]


class RecordBody(_Body):
    """What the job's record says."""

    id: str
    status: JobState
    attempts: int
    error: JobError | None
    resubmitted_from: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    erased_at: datetime | None


class DeadLetterDetail(DeadLetterBody):
    """A dead letter with its message and the state of its job."""

    properties: dict[str, str]
    message: JobMessage | None = Field(description="Null where it cannot be read.")
    unreadable: str | None = Field(description="Why it cannot be read.")
    job: RecordBody | None


class ResubmitAnswer(_Body):
    """What was done: a new job was admitted, or the same message went back to its queue."""

    outcome: Literal["admitted", "returned"]
    job_id: str | None = Field(description="The new job's id; null for a message that went back.")


@router.get("", summary="List the dead letters, oldest first", responses=refusals(400, 403, 503))
async def list_dead_letters(
    state: State,
    pool: Annotated[str | None, Query(max_length=64, description="Only this pool's.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="How many.")] = 20,
) -> DeadLetterPage:
    """Return the oldest; settle those to see more."""
    return DeadLetterPage(
        value=[_body(each) for each in await state.dead_letters.list(pool, limit)]
    )


# A foreign message's id may hold slashes: hence :path.
@router.get(
    "/{pool}/{message_id:path}", summary="Inspect a dead letter", responses=refusals(403, 404, 503)
)
async def get_dead_letter(pool: PoolName, message_id: MessageId, state: State) -> DeadLetterDetail:
    """Return the dead letter, its message and its job's state."""
    aside = await state.dead_letters.get(pool, message_id)
    return DeadLetterDetail(
        **_body(aside).model_dump(),
        properties=dict(aside.letter.properties),
        message=aside.message,
        unreadable=aside.unreadable,
        job=_record(aside),
    )


@router.post(
    "/{pool}/{message_id:path}:resubmit",
    summary="Run it again",
    responses=refusals(400, 403, 404, 409, 503),
)
async def resubmit_dead_letter(
    pool: PoolName, message_id: MessageId, state: State
) -> ResubmitAnswer:
    """Admit a failed job anew; give the message of any other back to its queue."""
    done = await state.dead_letters.resubmit(pool, message_id)
    if done.new_job is None:
        return ResubmitAnswer(outcome="returned", job_id=None)
    return ResubmitAnswer(outcome="admitted", job_id=done.new_job.id)


@router.post(
    "/{pool}/{message_id:path}:discard",
    status_code=204,
    response_class=Response,
    summary="Remove it for good",
    responses=refusals(403, 404, 503),
)
async def discard_dead_letter(pool: PoolName, message_id: MessageId, state: State) -> Response:
    """Remove the message; a job that had not ended ends as Failed."""
    await state.dead_letters.discard(pool, message_id)
    return Response(status_code=204)


def _body(aside: SetAside) -> DeadLetterBody:
    letter, message, job = aside.letter, aside.message, aside.job
    told = letter.properties
    return DeadLetterBody(
        message_id=letter.message_id,
        pool=aside.pool,
        reason=letter.reason,
        description=letter.description,
        delivery_count=letter.delivery_count,
        enqueued_at=letter.enqueued_at,
        job_id=message.job_id if message else job.id if job else None,
        tenant=message.tenant if message else told.get("tenant"),
        model=message.model if message else told.get("model"),
        job_status=job.status if job else None,
    )


def _record(aside: SetAside) -> RecordBody | None:
    job = aside.job
    if job is None:
        return None
    return RecordBody(**{name: getattr(job, name) for name in RecordBody.model_fields})
