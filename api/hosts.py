"""Against DNS rebinding: an API without credentials answers to this machine's names alone.

A web page from elsewhere can point a name of its own to 127.0.0.1 and would then be of the same
origin as the API. The browser still sends that name in ``Host``, which is how it is told apart.
"""

from pydantic import HttpUrl
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import HostNotAllowed
from api.problems import answer
from api.settings import is_loopback


class LoopbackNames:
    """Refuses a request whose host is neither of this machine nor that of ``public_url``."""

    def __init__(self, app: ASGIApp, public_url: HttpUrl | None) -> None:
        self._app = app
        self._public_host = public_url.host if public_url is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http" and not self._knows(Headers(scope=scope).get("host", "")):
            error = HostNotAllowed(
                "this API answers to localhost alone, as it asks for no credentials", target="Host"
            )
            await answer(Request(scope), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        return is_loopback(name) or (bool(name) and name == self._public_host)
