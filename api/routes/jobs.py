"""Submit a job, follow it, list, cancel."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime

from api.answers import job_answer, job_headers, job_location, json_answer
from api.auth.base import Role
from api.bodies import read_generation
from api.dependencies import (
    JobId,
    Reader,
    State,
    Submitter,
    base_url,
    caller_with,
    own_job,
    state_of,
)
from api.documentation import JOB_HEADERS, NOT_MODIFIED, SUBMIT_BODY, SUBMIT_HEADERS, refusals
from api.headers import MAX_WAIT_SECONDS, matches, preference
from api.representations import JobBody, JobPage, job_body
from api.submitting import is_over, submit_job
from darkroom.errors import InvalidInput, VersionConflict
from darkroom.generation import MAX_TAG_CHARACTERS
from darkroom.jobs import Job, JobState, request_cancel
from darkroom.jobstores.base import MAX_PAGE_SIZE, JobFilter

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
MAX_CURSOR_CHARACTERS = 512


@router.post(
    "",
    status_code=202,
    response_model=JobBody,
    summary="Submit a job",
    openapi_extra=SUBMIT_BODY | SUBMIT_HEADERS,
    responses={
        202: {"description": "Accepted; poll Operation-Location.", "headers": JOB_HEADERS},
        200: {"description": "Finished within `Prefer: wait`.", "model": JobBody},
        **refusals(400, 409, 413, 415, 422, 503),
    },
)
async def submit(request: Request) -> Response:
    """Check the request, record the job, send its message."""
    # Asked for here, not by parameters: those take the framework a sixth of the whole submit.
    state = await state_of(request)
    caller = await caller_with(Role.SUBMIT, request)
    wanted = preference(request.headers.getlist("prefer"))
    reading = read_generation(request, state)
    key = request.headers.get("idempotency-key")
    job = await submit_job(request, caller, state, reading, key)
    job = await state.watcher.wait(job, is_over, wanted.wait_seconds)
    done = wanted.wait_seconds > 0 and job.status.is_terminal
    answered = await job_answer(request, state, job, status=200 if done else 202)
    answered.headers["operation-location"] = job_location(request, state, job)
    if wanted.applied:
        answered.headers["preference-applied"] = wanted.applied
    return answered


@router.get(
    "/{job_id}",
    response_model=JobBody,
    summary="Read a job, now or when it has changed",
    responses={
        200: {"description": "The job.", "headers": JOB_HEADERS},
        304: NOT_MODIFIED,
        **refusals(400, 404, 503),
    },
)
async def get(
    request: Request,
    job_id: JobId,
    caller: Reader,
    state: State,
    wait: Annotated[
        int,
        Query(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="Seconds to wait for the end, or with If-None-Match for any change.",
        ),
    ] = 0,
    if_none_match: Annotated[str | None, Header(description="An ETag seen before.")] = None,
) -> Response:
    """Answer at once, or wait."""
    job = await own_job(job_id, caller, state)

    def is_news(read: Job) -> bool:
        changed = if_none_match is not None and not matches(if_none_match, read.version)
        return changed or read.status.is_terminal

    job = await state.watcher.wait(job, is_news, wait)
    if matches(if_none_match, job.version):
        return Response(status_code=304, headers=job_headers(job, await state.lines.place(job)))
    return await job_answer(request, state, job)


@router.get(
    "",
    response_model=JobPage,
    response_model_exclude_none=True,
    summary="List your jobs, newest first",
    responses=refusals(400, 503),
)
async def list_jobs(
    request: Request,
    caller: Reader,
    state: State,
    status: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    model: Annotated[str | None, Query(max_length=64, description="Only this model.")] = None,
    created_after: Annotated[
        AwareDatetime | None, Query(description="Only jobs created after (RFC 3339, with zone).")
    ] = None,
    tag: Annotated[
        str | None,
        Query(
            max_length=2 * MAX_TAG_CHARACTERS + 1,
            description="Only this tag: `name:value`.",
            json_schema_extra={"pattern": r"^[^:]+:[\s\S]+$"},
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Most per page.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=MAX_CURSOR_CHARACTERS, description="From `next_link`.")
    ] = None,
) -> Response:
    """Return a page. A filtered page may be short, even empty, and still have a next one."""
    filters = JobFilter(status, model, created_after, _tag(tag))
    page = await state.jobs.list(caller.tenant, filters, limit=limit, cursor=cursor)
    base = base_url(request, state)
    link = None
    if page.next_cursor is not None:
        asked = request.url.include_query_params(cursor=page.next_cursor)
        link = f"{base}/v1/jobs?{asked.query}"
    bodies = [job_body(job, base, await state.lines.place(job)) for job in page.jobs]
    listed = JobPage(value=bodies, next_link=link)
    left_out = {"next_link"} if link is None else None
    return json_answer(listed.model_dump_json(exclude=left_out))


@router.post(
    "/{job_id}:cancel",
    response_model=JobBody,
    summary="Cancel a job",
    responses={200: {"description": "The job.", "headers": JOB_HEADERS}, **refusals(404, 503)},
)
async def cancel(request: Request, job_id: JobId, caller: Submitter, state: State) -> Response:
    """End a waiting job at once, ask a running one's worker to stop; a finished one stays."""
    while True:
        job = await own_job(job_id, caller, state)
        asked = request_cancel(job, state.clock.now())
        if asked is job:
            break
        try:
            job = await state.jobs.compare_and_set(asked, job.version)
        except VersionConflict:  # a worker wrote in between: look again
            continue
        state.watcher.changed(job)
        if job.status.is_terminal:
            await state.admission.withdraw(job)
        break
    return await job_answer(request, state, job)


def _tag(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, colon, value = text.partition(":")
    if not (name and colon and value):
        raise InvalidInput("tag must be name:value", target="tag")
    return name, value
