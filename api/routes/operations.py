"""For those who run it: probes and metrics."""

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.dependencies import State
from api.documentation import refusals
from api.representations import Health
from api.state import ApiState
from darkroom.errors import DarkroomError, JobNotFound, QueueUnavailable

router = APIRouter(tags=["operations"])
CHECK_SECONDS = 2.0


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
    names = ["jobs", *(f"queue {pool}" for pool in state.queues)]
    tries = [_read_jobs(state), *(queue.depth() for queue in state.queues.values())]
    found = await asyncio.gather(*(_check(one) for one in tries))
    checks = dict(zip(names, found, strict=True))
    ready = all(result == "ok" for result in found)
    response.status_code = 200 if ready else 503
    return Health(status="ok" if ready else "unavailable", checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    summary="Prometheus metrics",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."},
        **refusals(),
    },
)
async def metrics(state: State) -> Response:
    """Return every series, with the queues' depths as they are now."""
    gauge = state.metrics.queue_depth
    for pool, queue in state.queues.items():
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


async def _read_jobs(state: ApiState) -> None:
    try:
        await state.jobs.get("probe")
    except JobNotFound:
        return


async def _check(reading: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await reading
    except DarkroomError as error:
        return error.code
    except TimeoutError:
        return "Timeout"
    return "ok"
