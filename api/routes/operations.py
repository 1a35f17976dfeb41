"""For those who run it: probes and metrics."""

from fastapi import APIRouter, Request, Response

from api.auth.base import Role
from api.dependencies import State, caller_of, check_role
from api.documentation import refusals
from api.metrics_port import measured
from api.readiness import checks_of
from api.representations import Health

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="Whether the process answers", responses=refusals())
async def livez() -> Health:
    """Answer; nothing else is looked at, so that a failing store restarts no process."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Whether the job store and the queues answer",
    responses={503: {"description": "One of them does not answer.", "model": Health}},
)
async def readyz(state: State, response: Response) -> Health:
    """Try one cheap read on each."""
    checks = await checks_of(state)
    ready = all(result == "ok" for result in checks.values())
    response.status_code = 200 if ready else 503
    return Health(status="ok" if ready else "unavailable", checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    summary="Prometheus metrics",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."},
        **refusals(401, 403, 429),
    },
)
async def metrics(request: Request, state: State) -> Response:
    """Return every series, with the queues' depths as they are now."""
    if state.settings.metrics_need_operator:
        check_role(await caller_of(request), Role.OPERATE)
    return await measured(state)
