"""The application: routes, errors, the sweeper's life. Everything it uses is in its `ApiState`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from api import problems
from api.documentation import document
from api.middleware import RequestContext
from api.routes import dead_letters, ended, images, jobs, models, operations, pages, usage
from api.state import ApiState
from darkroom import __version__

# The framework's own log records hold the words of errors, which may quote a prompt.
TELEMETRY: TelemetryConfig = {"logs": False, "operation_spans": False}


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
    for module in (jobs, ended, images, models, usage, dead_letters, operations, pages):
        app.include_router(module.router)
    pages.mount(app)
    app.add_middleware(RequestContext, metrics=state.metrics)
    document(app)
    return app
