"""A job's changes as they are seen: Server-Sent Events (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from api.dependencies import JobId, Reader, State, base_url, own_job
from api.documentation import refusals
from api.representations import job_body
from api.state import ApiState
from darkroom.jobs import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
KEEP_ALIVE_SECONDS = 15.0
RECONNECT_MILLISECONDS = 1000
_HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx and what follows it would hold the events back
}
_EVENT = {  # of one event, as OpenAPI 3.2 reads it
    "type": "object",
    "properties": {
        "event": {"enum": ["status", "progress", "preview", "done"]},
        "id": {"type": "string", "description": "The record's version."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/JobBody"},
        },
    },
    "required": ["event", "id", "data"],
}


@router.get(
    "/{job_id}/events",
    response_class=Response,
    summary="Follow a job as Server-Sent Events",
    responses={
        200: {
            "description": "Events `status`, `progress`, `preview`, `done`; each with the job.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "The job has ended and `Last-Event-ID` was its last event."},
        **refusals(404, 503),
    },
)
async def events(
    request: Request,
    job_id: JobId,
    caller: Reader,
    state: State,
    last_event_id: Annotated[
        str | None, Header(description="The last event seen: the stream goes on after it.")
    ] = None,
) -> Response:
    """Send the job as it is, unless it was seen; then each change until the end."""
    job = await own_job(job_id, caller, state)
    seen = last_event_id == job.version
    if seen and job.status.is_terminal:
        return Response(status_code=204)  # what tells an EventSource not to come again
    content = _stream(job, seen, state, base_url(request, state))
    return StreamingResponse(content, headers=_HEADERS, media_type="text/event-stream")


async def _stream(job: Job, seen: bool, state: ApiState, base: str) -> AsyncIterator[str]:
    yield f"retry: {RECONNECT_MILLISECONDS}\n\n"
    sent = await _shown(job, state, base)
    if not seen:
        yield _event(job, None, sent)
    async with aclosing(state.watcher.follow(job, KEEP_ALIVE_SECONDS)) as changes:
        async for newer in changes:
            shown = await _shown(newer or job, state, base)
            if shown != sent:  # a renewed claim is no news; a step forward in the line is
                yield _event(newer or job, job, shown)
                job, sent = newer or job, shown
            elif newer is None:
                yield ": still here\n\n"


def _event(job: Job, before: Job | None, shown: str) -> str:
    rest = f"id: {job.version}\ndata: {shown}\n\n"
    return "".join(f"event: {kind}\n{rest}" for kind in _kinds(job, before))


def _kinds(job: Job, before: Job | None) -> list[str]:
    """What a record is news of. A new preview is said by itself, whatever else came with it."""
    if job.status.is_terminal:
        return ["done"]
    has_preview = job.preview_step is not None
    if before is None:
        return ["status", "preview"] if has_preview else ["status"]
    is_shown_anew = has_preview and job.preview_step != before.preview_step
    if job is before or _standing(job) != _standing(before):
        return ["status", "preview"] if is_shown_anew else ["status"]
    return ["preview"] if is_shown_anew else ["progress"]


def _standing(job: Job) -> tuple[object, ...]:
    return job.status, job.phase, job.attempts, job.cancel_requested


async def _shown(job: Job, state: ApiState, base: str) -> str:
    """Return the job on one line of ASCII: some clients take U+2028 for the end of a line."""
    body = job_body(job, base, await state.lines.place(job))
    return body.model_dump_json(ensure_ascii=True)
