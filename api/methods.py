"""HEAD for what GET answers, and an honest no to a convention that is not followed.

Plain ASGI, so that streams pass through untouched.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.error_shapes import TUTORIAL_PATH
from api.errors import NotSupported
from api.problems import answer

REPEATABILITY_HEADER = b"repeatability-request-id"


class Methods:
    """Answers HEAD by the GET without its body, and 501 to ``Repeatability-Request-ID``.

    HEAD is not for a stream that ends with its job, nor for a GET that makes a picture.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif any(name == REPEATABILITY_HEADER for name, _ in scope["headers"]):
            refusal = NotSupported(
                "Repeatability-Request-ID is not supported: send an Idempotency-Key",
                target="Repeatability-Request-ID",
            )
            await answer(Request(scope), refusal)(scope, receive, send)
        elif scope["method"] == "HEAD" and _has_head(scope["path"]):
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, without_body)
        finally:
            scope["route"] = inner.get("route")  # what the metrics name


def _has_head(path: str) -> bool:
    return path != TUTORIAL_PATH and not path.endswith("/events")
