"""The API's metrics on a port of their own, which no gateway leads to and no credential opens."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.readiness import CHECK_SECONDS
from api.state import ApiState
from darkroom.errors import QueueUnavailable
from darkroom.webhooks import QUEUE_NAME


async def measured(state: ApiState) -> Response:
    """Return every series in Prometheus' format, with the queues' depths as they are now."""
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


@asynccontextmanager
async def metrics_served(state: ApiState, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve `/metrics` on a bound socket for as long as the block lasts; on none without one."""
    if listener is None:
        yield
        return

    async def metrics(_request: Request) -> Response:
        return await measured(state)

    config = uvicorn.Config(
        Starlette(routes=[Route("/metrics", metrics)]),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = _WithoutSignals(config)
    task = asyncio.create_task(server.serve([listener]), name="metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _WithoutSignals(uvicorn.Server):
    """Leaves the signals to the server of the API, which ends this one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
