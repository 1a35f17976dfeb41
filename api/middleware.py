"""Around every request: its id, its time, its log line, and the last guard against bare errors.

Plain ASGI, so that streams pass through untouched.
"""

import re
import time
import traceback
from typing import Any

import uuid_utils
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import answer
from darkroom.errors import DarkroomError
from darkroom.log import get_logger
from darkroom.metrics import ApiMetrics

_CLIENT_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:\-]{1,128}$")
CLIENT_GONE = 499  # what proxies log for it
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self';"
    " frame-ancestors 'none'"
)


class RequestContext:
    """Adds the headers that every answer has, observes the time, and answers what nobody caught."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._log = get_logger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid_utils.uuid4().hex
        known: dict[str, Any] = scope.setdefault("state", {})  # the routes' request.state
        began = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                _add_headers(headers, Headers(scope=scope), request_id)
                headers.update(known.get("rate_headers", {}))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:  # nobody is left to answer
            status = CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - a bug: nobody may see its message, which can hold input
            self._log_crash(error, request_id)
            if status == 0:
                request = Request(scope)
                await answer(request, DarkroomError("unexpected"))(
                    scope, receive, send_with_headers
                )
        finally:
            self._observe(scope, status, time.perf_counter() - began, request_id)

    def _log_crash(self, error: Exception, request_id: str) -> None:
        frames = [
            f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)
        ]
        self._log.error(
            "request_crashed", kind=type(error).__name__, frames=frames, request_id=request_id
        )

    def _observe(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        method = scope["method"] if route != "unmatched" else "any"
        self._metrics.request_seconds.labels(method, route, str(status)).observe(seconds)
        self._log.debug(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            seconds=round(seconds, 6),
            request_id=request_id,
        )


def _add_headers(answered: MutableHeaders, asked: Headers, request_id: str) -> None:
    answered["x-ms-request-id"] = request_id
    answered["x-content-type-options"] = "nosniff"
    client_id = asked.get("x-ms-client-request-id", "")
    if _CLIENT_REQUEST_ID.match(client_id):
        answered["x-ms-client-request-id"] = client_id
    if answered.get("content-type", "").startswith("text/html"):
        answered["content-security-policy"] = PAGE_POLICY
        answered["referrer-policy"] = "no-referrer"
