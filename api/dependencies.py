"""What routes ask for: the app's state, the caller, the request's own address."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Path, Request

from api.auth.base import Caller, Role
from api.errors import Forbidden
from api.state import ApiState
from darkroom.errors import JobNotFound
from darkroom.jobs import Job

_JOB_ID = re.compile(r"^[a-z][a-z0-9]{1,11}-[0-9a-f]{32,64}$")


async def state_of(request: Request) -> ApiState:
    """Return the app's state.

    A coroutine, though it waits for nothing: FastAPI runs plain functions in a thread, which takes
    longer than all that a request is checked for.
    """
    state = request.app.state.api
    assert isinstance(state, ApiState)
    return state


async def caller_of(request: Request) -> Caller:
    """Return who calls, counted against the tenant's rate.

    Raises `Unauthenticated`, `IdentityProviderUnavailable`, `TooManyRequests`.
    """
    state = await state_of(request)
    caller = await state.callers.identify(request.headers)
    request.state.rate_headers = await state.rates.count(caller.tenant)
    return caller


async def caller_with(role: Role, request: Request) -> Caller:
    """Return who calls, as `caller_of` does. Raises `Forbidden` that names ``role`` if it lacks it.

    For a route that asks for nothing else of the framework.
    """
    caller = await caller_of(request)
    check_role(caller, role)
    return caller


def check_role(caller: Caller, role: Role) -> None:
    """Raise `Forbidden` that names ``role`` unless the caller has it."""
    if role not in caller.roles:
        raise Forbidden(role)


def with_role(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """Return a dependency that gives the caller, or raises `Forbidden` naming the role it lacks."""

    async def checked(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        check_role(caller, role)
        return caller

    return checked


State = Annotated[ApiState, Depends(state_of)]
Submitter = Annotated[Caller, Depends(with_role(Role.SUBMIT))]
Reader = Annotated[Caller, Depends(with_role(Role.READ))]
Operator = Depends(with_role(Role.OPERATE))  # of a router: its routes have no use for who it is
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
