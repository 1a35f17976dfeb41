"""From settings to a serving process: the only module of this package that opens adapters."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.loops.auto import auto_loop_factory

from api.app import create_app
from api.metrics_port import metrics_served
from api.settings import ApiSettings
from api.state import ApiState, make_state
from api.webhooks.settings import WebhookSettings
from darkroom import log
from darkroom.catalog import load_catalog
from darkroom.clock import SystemClock
from darkroom.errors import SettingsError
from darkroom.settings import DarkroomSettings, load
from darkroom.wiring import open_backends


def build(
    settings: ApiSettings, shared: DarkroomSettings, webhook_settings: WebhookSettings | None = None
) -> FastAPI:
    """Return the application on the backends that ``shared`` names.

    Raises `SettingsError` that names the variable, or the extra that is not installed.
    """
    catalog = load_catalog(shared.catalog)
    clock = SystemClock()
    backends = open_backends(shared, catalog, clock)
    state = make_state(
        settings=settings,
        region=shared.region,
        catalog=catalog,
        jobs=backends.jobs,
        images=backends.images,
        queues=backends.queues,
        clock=clock,
        webhooks=backends.webhooks,
        webhook_settings=webhook_settings,
        close=backends.close,
    )
    return create_app(state)


def serve() -> int:
    """Run the API until SIGTERM or SIGINT; return the exit status. Nothing goes to stdout."""
    log.configure("info", "json", "api")  # for what is said before the settings are known
    try:
        settings, shared = load(ApiSettings), load(DarkroomSettings)
        log.configure(shared.log_level, shared.log_format, "api")
        app = build(settings, shared, load(WebhookSettings))
        listener, metrics = listen(settings), listen_for_metrics(settings)
    except SettingsError as error:
        log.get_logger().error("settings_refused", reason=error.message)
        return 2
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(run(app, settings, listener, metrics))
    return 0


async def run(
    app: FastAPI,
    settings: ApiSettings,
    listener: socket.socket,
    metrics: socket.socket | None = None,
) -> None:
    """Serve ``app`` on a bound socket until a signal comes; then finish what is open.

    ``metrics`` is a second socket that serves the metrics alone.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_seconds),
    )
    async with metrics_served(app.state.api, metrics):
        await _Server(config, app.state.api).serve([listener])


def listen(settings: ApiSettings) -> socket.socket:
    """Return a socket on the address of ``settings``. Raises `SettingsError` if it is taken.

    Its connections inherit TCP_NODELAY, which asyncio does not set for a socket made like this:
    without it an answer's body waits up to 40 ms for the caller to acknowledge its head.
    """
    return _listen(settings.host, settings.port, "DARKROOM_API_PORT")


def listen_for_metrics(settings: ApiSettings) -> socket.socket | None:
    """Return a socket for the metrics, if they have a port. Raises `SettingsError` as `listen`."""
    if not settings.metrics_port:
        return None
    return _listen(settings.metrics_host, settings.metrics_port, "DARKROOM_API_METRICS_PORT")


def _listen(host: str, port: int, variable: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = f"cannot listen on {host} port {port}: {error.strerror}"
        raise SettingsError(reason, target=variable) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Server(uvicorn.Server):
    """Says where it listens, lets waiting callers go when it stops, and then ends with status 0."""

    def __init__(self, config: uvicorn.Config, state: ApiState) -> None:
        super().__init__(config)
        self._state = state

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            log.get_logger().info("listening", url=f"http://{shown}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.watcher.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on the first signal, at once on the second; unlike the base, do not re-raise it."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
