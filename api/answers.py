"""A job as an answer: its body, its version, when to look again, where it is."""

from typing import Any

from fastapi import Request, Response

from api.dependencies import base_url
from api.headers import etag
from api.lines import Place
from api.representations import job_body, retry_after_seconds
from api.state import ApiState
from darkroom.jobs import Job


def job_location(request: Request, state: ApiState, job: Job) -> str:
    """Return the absolute address of ``job``."""
    return f"{base_url(request, state)}/v1/jobs/{job.id}"


def job_headers(job: Job, place: Place | None = None) -> dict[str, str]:
    """Return ETag and Cache-Control, and Retry-After until the job has ended."""
    headers = {"etag": etag(job.version), "cache-control": "private, no-cache"}
    if not job.status.is_terminal:
        headers["retry-after"] = str(retry_after_seconds(job, place))
    return headers


async def job_answer(request: Request, state: ApiState, job: Job, status: int = 200) -> Response:
    """Return the job with its headers, and its place in the line while it waits."""
    place = await state.lines.place(job)
    body = job_body(job, base_url(request, state), place)
    return json_answer(body.model_dump_json(), status, job_headers(job, place))


def json_answer(text: str, status: int = 200, headers: Any = None) -> Response:
    """Return JSON that is text already."""
    return Response(text, status, headers, media_type="application/json")
