"""Against other sites' pages: without a credential nothing they send has an effect.

A form, or the address of a picture, can be sent by any web page to an API on the reader's own
machine; the page cannot read the answer, but the job would be made. Browsers say so in
``Sec-Fetch-Site`` (W3C Fetch Metadata). A credential has to be put in by hand, so a request with
one was meant.
"""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.error_shapes import TUTORIAL_PATH
from api.errors import CrossSite
from api.problems import answer

_CREDENTIALS = ("authorization", "x-api-key")
_HARMLESS = ("GET", "HEAD", "OPTIONS")


class CrossSiteGuard:
    """Refuses what would have an effect and comes from another site's page, uninvited."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http" and _has_effect(scope) and _is_foreign(Headers(scope=scope)):
            error = CrossSite("a page of another site needs a credential here")
            await answer(Request(scope), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _has_effect(scope: Scope) -> bool:
    return scope["method"] not in _HARMLESS or scope["path"] == TUTORIAL_PATH


def _is_foreign(headers: Headers) -> bool:
    if any(name in headers for name in _CREDENTIALS):
        return False
    return headers.get("sec-fetch-site") in ("cross-site", "same-site")
