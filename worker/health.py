"""What the worker tells probes and Prometheus, on one port: /metrics, /livez, /readyz.

Served from threads of its own, so that an event loop that hangs is told of, not hidden by silence:
the loop sets `Health.beat` every second, and the server's threads only read.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from darkroom.errors import SettingsError

BEAT_SECONDS = 1.0
LOOP_SILENT_SECONDS = 60.0
"""The event loop turns later than this only if it hangs: what holds the interpreter's lock for long
is the loading of torch's libraries, and that takes seconds, not minutes, even from a cold disk."""

REQUEST_SECONDS = 10.0
POLL_SECONDS = 0.1  # how late the server may see that it is to stop
PLAIN = "text/plain; charset=utf-8"


class Condition(Protocol):
    """What probes are told of. Called from the server's threads."""

    def why_dead(self) -> str | None:
        """Return why the process should be started anew; None while it is alive."""
        ...

    def why_unready(self) -> str | None:
        """Return why there is no work to be had here; None when there is."""
        ...


class Health:
    """Whether the process is of use: alive, and ready for work.

    ``draining`` is called from other threads; ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self, draining: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._draining = draining
        self._clock = clock
        self._beaten = clock()
        self._warm = False
        self._silent_seconds: Callable[[], float] = lambda: 0.0
        self._stuck_seconds = float("inf")

    def beat(self) -> None:
        """Note that the event loop runs."""
        self._beaten = self._clock()

    async def keep_beating(self) -> None:
        """Beat every second, until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(BEAT_SECONDS)

    def watch_engine(self, silent_seconds: Callable[[], float], stuck_seconds: float) -> None:
        """From now on be dead when the engine was silent for longer than ``stuck_seconds``.

        ``silent_seconds`` is called from other threads.
        """
        self._silent_seconds = silent_seconds
        self._stuck_seconds = stuck_seconds

    def warm(self) -> None:
        """Note that models are loaded and the queue can be asked."""
        self._warm = True

    def why_dead(self) -> str | None:
        """Return why the process should be started anew; None while it is alive."""
        if self._clock() - self._beaten > LOOP_SILENT_SECONDS:
            return "the event loop hangs"
        if self._silent_seconds() > self._stuck_seconds:
            return "the engine hangs"
        return None

    def why_unready(self) -> str | None:
        """Return why there is no work to be had here; None when there is."""
        if self._draining():
            return "draining"
        return None if self._warm else "warming up"


@contextmanager
def served(health: Condition, registry: CollectorRegistry, host: str, port: int) -> Iterator[None]:
    """Serve ``health`` and the metrics while the block runs; port 0 serves nothing.

    Raises `SettingsError` for an address that cannot be had.
    """
    if not port:
        yield
        return
    server = _listening(host, port)
    server.health, server.registry = health, registry
    thread = threading.Thread(
        target=server.serve_forever, args=(POLL_SECONDS,), name="health", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listening(host: str, port: int) -> "_Server":
    kind = _Server6 if ":" in host else _Server
    try:
        return kind((host, port), _Handler)
    except OSError as error:
        raise SettingsError(
            f"DARKROOM_WORKER_METRICS_PORT: {host} port {port}: {error.strerror}",
            target="DARKROOM_WORKER_METRICS_PORT",
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    health: Condition
    registry: CollectorRegistry


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout: ClassVar[float] = REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Answer one of the three paths."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, content_type, encode(self.server.registry))
        elif path == "/livez":
            self._probe(self.server.health.why_dead())
        elif path == "/readyz":
            self._probe(self.server.health.why_unready() or self.server.health.why_dead())
        else:
            self._answer(404, PLAIN, b"not found\n")

    def _probe(self, why_not: str | None) -> None:
        self._answer(503 if why_not else 200, PLAIN, f"{why_not or 'ok'}\n".encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing: probes come every few seconds."""
