"""The admin API over HTTP: what ServiceBusAdministrationClient and KEDA's Go client ask for.

An unknown queue is answered with 200 and an empty feed, as Azure does; the clients make
"not found" of it.
"""

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from emulators.service_bus import atom
from emulators.service_bus.broker import Broker
from emulators.service_bus.cbs import Unauthorized
from emulators.service_bus.config import ConfigError, queue_settings
from emulators.service_bus.queue import Queue

CONTENT_TYPE: Final = "application/atom+xml;type=entry;charset=utf-8"


def _xml(status: int, body: str) -> web.Response:
    return web.Response(
        status=status,
        body=('<?xml version="1.0" encoding="utf-8"?>' + body).encode(),
        headers={"Content-Type": CONTENT_TYPE},
    )


def _refuse(status: int, text: str) -> web.Response:
    return _xml(status, atom.error(status, text))


class AdminApi:
    """The routes; every one but `/health` asks for a token that the broker's authority knows."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._authorize], client_max_size=1 << 18)
        app.router.add_get("/health", self._health)
        app.router.add_get("/$namespaceinfo", self._namespace)
        app.router.add_get("/$Resources/{kind}", self._list)
        app.router.add_get("/{name:.+}", self._get)
        app.router.add_put("/{name:.+}", self._put)
        app.router.add_delete("/{name:.+}", self._delete)
        return app

    @web.middleware
    async def _authorize(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if request.path != "/health":
            try:
                self._broker.authority.check(request.headers.get("Authorization", ""))
            except Unauthorized as error:
                return _refuse(401, str(error))
        try:
            return await handler(request)
        except ConfigError as error:
            return _refuse(400, str(error))

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def _namespace(self, request: web.Request) -> web.Response:
        content = atom.namespace_info("darkroom-emulator")
        return _xml(200, atom.entry(str(request.url), "darkroom-emulator", content))

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"].lower()
        if kind == "topics":
            return _xml(200, atom.feed(str(request.url), "Topics", []))
        if kind != "queues":
            return _refuse(400, f"$Resources/{kind} is not known")
        skip, top = _page(request, "$skip", 0), _page(request, "$top", 100)
        queues = self._broker.queues()[skip : skip + top]
        entries = [_entry(request, queue) for queue in queues]
        return _xml(200, atom.feed(str(request.url), "Queues", entries))

    async def _get(self, request: web.Request) -> web.Response:
        queue = self._broker.queue(_name(request))
        if queue is None:
            return _xml(200, atom.feed(str(request.url), "Publicly Listed Services", []))
        return _xml(200, _entry(request, queue))

    async def _put(self, request: web.Request) -> web.Response:
        name = _name(request)
        known = self._broker.queue(name)
        if known is not None and "If-Match" not in request.headers:
            return _refuse(409, f"SubCode=40900. Conflict. The queue {name!r} exists already")
        if known is None and "If-Match" in request.headers:
            return _refuse(404, f"the queue {name!r} does not exist")
        settings = queue_settings(atom.parse_queue_description(await request.read()))
        queue = self._broker.create_queue(known.name if known else name, settings)
        return _xml(200 if known else 201, _entry(request, queue))

    async def _delete(self, request: web.Request) -> web.Response:
        name = _name(request)
        if not self._broker.delete_queue(name):
            return _refuse(404, f"the queue {name!r} does not exist")
        return web.Response(status=200)


def _entry(request: web.Request, queue: Queue) -> str:
    url = str(request.url.with_path(f"/{queue.name}"))
    return atom.entry(url, queue.name, atom.queue_description(queue))


def _name(request: web.Request) -> str:
    return unquote(request.match_info["name"]).strip("/")


def _page(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit():
        raise ConfigError(f"{name} must be a whole number")
    return int(text)
