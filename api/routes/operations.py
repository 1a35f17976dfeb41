"""For those who run it: probes and metrics."""

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.auth.base import Role
from api.dependencies import State, caller_of, check_role
from api.documentation import refusals
from api.readiness import CHECK_SECONDS, checks_of
from api.representations import Health
from darkroom.errors import QueueUnavailable
from darkroom.webhooks import QUEUE_NAME

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
    gauge = state.metrics.queue_depth
    events = {} if state.webhooks is None else {QUEUE_NAME: state.webhooks}
    for pool, queue in {**state.queues, **events}.items():
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                depth = await queue.depth()
        except (QueueUnavailable, TimeoutError):
            for kind in ("active", "dead_lettered", "scheduled"):
                gauge.labels(pool, kind).set(float("nan"))  # unknown is not zero
            continue
        gauge.labels(pool, "active").set(depth.active)
        gauge.labels(pool, "dead_lettered").set(depth.dead_lettered)
        gauge.labels(pool, "scheduled").set(depth.scheduled)
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
