"""The application: routes, errors, the sweeper's life. Everything it uses is in its `ApiState`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from api import problems
from api.cross_site import CrossSiteGuard
from api.documentation import document
from api.hosts import LoopbackNames
from api.methods import Methods
from api.middleware import RequestContext
from api.routes import (
    dead_letters,
    ended,
    events,
    images,
    jobs,
    models,
    openai,
    operations,
    pages,
    tutorial,
    usage,
    webhooks,
)
from api.state import ApiState
from darkroom import __version__

# The framework's own log records hold the words of errors, which may quote a prompt.
TELEMETRY: TelemetryConfig = {"logs": False, "operation_spans": False}


ROUTERS = tuple(
    module.router
    for module in (
        jobs,
        events,
        ended,
        webhooks,
        images,
        openai,
        tutorial,
        models,
        usage,
        dead_letters,
        operations,
        pages,
    )
)


def create_app(state: ApiState) -> FastAPI:
    """Return the application that serves ``state``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(state.sweeper.run())
        try:
            yield
        finally:
            state.watcher.close()
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await state.close()

    app = FastAPI(
        title="Darkroom",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=TELEMETRY,
    )
    app.state.api = state
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    pages.mount(app)
    if state.settings.is_local_only:
        app.add_middleware(LoopbackNames, public_url=state.settings.public_url)
    app.add_middleware(Methods)
    app.add_middleware(CrossSiteGuard)
    app.add_middleware(RequestContext, metrics=state.metrics)
    document(app)
    return app
