"""What routes ask for: the app's state, the caller, the request's own address, its JSON body."""

import asyncio
import json
import re
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import ValidationError

from api.auth import LOCAL, Caller
from api.errors import (
    Forbidden,
    InvalidJson,
    InvalidParameters,
    RequestTooLarge,
    UnsupportedMediaType,
)
from api.problems import details_of
from api.state import ApiState
from darkroom.errors import JobNotFound
from darkroom.generation import GenerationRequest
from darkroom.jobs import Job

_JOB_ID = re.compile(r"^[a-z][a-z0-9]{1,11}-[0-9a-f]{32,64}$")
_FIELDS = {name: field.description or "" for name, field in GenerationRequest.model_fields.items()}
OPERATOR_ROLE = "Jobs.Operate"
IN_THREAD_BYTES = 256 * 1024  # a longer body is parsed off the event loop


def state_of(request: Request) -> ApiState:
    """Return the app's state."""
    state = request.app.state.api
    assert isinstance(state, ApiState)
    return state


def caller_of() -> Caller:
    """Return who calls."""
    return LOCAL


def operator_of(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
    """Return who calls. Raises `Forbidden` for a caller that is no operator."""
    if OPERATOR_ROLE not in caller.roles:
        raise Forbidden(OPERATOR_ROLE)
    return caller


State = Annotated[ApiState, Depends(state_of)]
Calling = Annotated[Caller, Depends(caller_of)]
Operator = Depends(operator_of)  # of a router: its routes have no use for who it is
JobId = Annotated[str, Path(description="The job's id, as the submit gave it.")]


def base_url(request: Request, state: ApiState) -> str:
    """Return the start of absolute links, without a slash at its end."""
    public = state.settings.public_url
    return str(public if public is not None else request.base_url).rstrip("/")


async def own_job(job_id: str, caller: Caller, state: ApiState) -> Job:
    """Return the caller's job. Raises `JobNotFound` alike for no job and another tenant's."""
    if _JOB_ID.match(job_id):
        try:
            job = await state.jobs.get(job_id)
        except JobNotFound:
            job = None
        if job is not None and job.tenant == caller.tenant:
            return job
    raise JobNotFound("there is no such job", target="job_id")


async def read_generation(request: Request, state: ApiState) -> GenerationRequest:
    """Read and check the body of a submit.

    Raises `UnsupportedMediaType`, `RequestTooLarge` (as soon as too much has come, whatever the
    headers said), `InvalidJson` and `InvalidParameters`.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("the body must be application/json", target="Content-Type")
    body = await _read_body(request, state.settings.max_body_bytes)
    if len(body) > IN_THREAD_BYTES:
        return await asyncio.to_thread(parse_generation, body)
    return parse_generation(body)


async def _read_body(request: Request, max_bytes: int) -> bytes:
    refusal = RequestTooLarge(f"the body must have at most {max_bytes:,} bytes", target="body")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise refusal
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise refusal
    return bytes(body)


def parse_generation(body: bytes) -> GenerationRequest:
    """Parse strict JSON (RFC 8259: no NaN, no name twice) into a request."""
    try:
        json.loads(body.decode(), object_pairs_hook=_no_name_twice, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        known = str(error) if isinstance(error, _NotJson) else "not a JSON document in UTF-8"
        raise InvalidJson(f"the body is not valid JSON: {known}", target="body") from None
    try:
        return GenerationRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        if any(one["type"] == "json_invalid" for one in found):
            reason = "a string is not valid Unicode, or a number is out of range"
            raise InvalidJson(f"the body is not valid JSON: {reason}", target="body") from None
        raise InvalidParameters(details_of(found, _FIELDS)) from None


class _NotJson(ValueError):
    """A message that holds nothing of the body."""


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotJson("a name stands twice in one object")
    return found


def _no_constants(_: str) -> Any:
    raise _NotJson("NaN and Infinity are not JSON numbers")
