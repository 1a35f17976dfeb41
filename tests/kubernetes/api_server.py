"""An API server in memory, served over HTTP by kmock: what the product's Kubernetes calls meet.

kmock's own emulator holds objects, but knows no selectors, pages, uids, merge patches that remove,
immutable fields or service accounts. So kmock parses and serves, and the objects are kept here.
Every call is noted with the service account that made it (the bearer token's text).
"""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import kmock
from lightkube import AsyncClient, KubeConfig
from lightkube.config.models import Cluster, User

from darkroom.clock import Clock, FakeClock

Object = dict[str, Any]
Key = tuple[str, str, str, str]  # group, plural, namespace, name

VERBS = {"LIST": "list", "FETCH": "get", "CREATE": "create", "UPDATE": "patch", "DELETE": "delete"}
BUILT_IN = {
    ("", "pods"), ("", "podtemplates"), ("", "nodes"), ("batch", "jobs"),
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One request, as RBAC sees it."""

    account: str
    verb: str
    group: str
    resource: str
    namespace: str | None
    name: str | None = None


@dataclass
class Refusal:
    """An answer to give instead, once."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Object = field(default_factory=dict)
    after_effect: bool = False  # the change is made, and its answer lost


class ApiServer:
    """The objects of a cluster. ``allowed`` may refuse calls, as RBAC does."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.objects: dict[Key, Object] = {}
        self.calls: list[Call] = []
        self.refusals: list[Refusal] = []
        self.kinds = set(BUILT_IN)
        self.allowed: Callable[[Call], bool] = lambda call: True
        self.deleted: list[Callable[[str, Object], None]] = []
        self._version = 0

    def add(self, group: str, plural: str, thing: Object) -> Object:
        """Store an object, as a create does."""
        self.kinds.add((group, plural))
        meta = thing.setdefault("metadata", {})
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", stamp(self.clock.now()))
        self.touch(thing)
        self.objects[group, plural, meta.get("namespace", ""), meta["name"]] = thing
        return thing

    def touch(self, thing: Object) -> None:
        """Give an object that was changed its next version."""
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)

    def all(self, group: str, plural: str, namespace: str | None = None) -> Iterator[Object]:
        """Yield the objects of a kind in the order of their creation."""
        for (of_group, of_plural, of_namespace, _), thing in list(self.objects.items()):
            if (of_group, of_plural) == (group, plural) and namespace in {None, of_namespace}:
                yield thing

    def remove(self, group: str, plural: str, thing: Object) -> None:
        """Take an object out, and tell who wants to know."""
        meta = thing["metadata"]
        self.objects.pop((group, plural, meta.get("namespace", ""), meta["name"]), None)
        for tell in self.deleted:
            tell(plural, thing)

    def serve(self, request: kmock.Request) -> kmock.Response:
        """Answer one request."""
        resource = request.resource
        if resource is None or request.action is None:
            return _failure(404, "NotFound")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        verb = VERBS[request.action.value]
        group, plural = str(resource.group or ""), str(resource.plural)
        call = Call(token, verb, group, plural, request.namespace, request.name)
        self.calls.append(call)
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None and not refusal.after_effect:
            return _answer(refusal.body or _status(refusal.status, "Refused"), refusal)
        if not self.allowed(call):
            return _failure(403, "Forbidden")
        answer = self._act(call, request)
        if refusal is not None:
            return _answer(_status(refusal.status, "Lost"), refusal)
        return answer

    def _act(self, call: Call, request: kmock.Request) -> kmock.Response:
        if (call.group, call.resource) not in self.kinds:
            return _failure(404, "NotFound")
        if call.verb == "list":
            return self._list(call, request)
        if call.verb == "create":
            return self._create(call, request)
        key = (call.group, call.resource, call.namespace or "", request.name or "")
        thing = self.objects.get(key)
        if thing is None:
            return _failure(404, "NotFound")
        if call.verb == "delete":
            self.remove(call.group, call.resource, thing)
            return _json(_status(200, "Success"))
        if call.verb == "patch":
            return self._patch(thing, request)
        return _json(thing)

    def _list(self, call: Call, request: kmock.Request) -> kmock.Response:
        found = [
            thing
            for thing in self.all(call.group, call.resource, call.namespace)
            if _matches(thing, request.params)
        ]
        start, limit = int(request.params.get("continue", 0)), int(request.params.get("limit", 0))
        page = found[start : start + limit] if limit else found
        meta: Object = {"resourceVersion": str(self._version)}
        if limit and start + limit < len(found):
            meta["continue"] = str(start + limit)
        return _json({"metadata": meta, "items": page})

    def _create(self, call: Call, request: kmock.Request) -> kmock.Response:
        thing = json.loads(request.body)
        name = thing["metadata"]["name"]
        if (call.group, call.resource, call.namespace or "", name) in self.objects:
            return _failure(409, "AlreadyExists")
        thing["metadata"]["namespace"] = call.namespace
        return _json(self.add(call.group, call.resource, thing), 201)

    def _patch(self, thing: Object, request: kmock.Request) -> kmock.Response:
        if request.headers.get("Content-Type") != "application/merge-patch+json":
            return _failure(415, "UnsupportedMediaType")
        change = json.loads(request.body)
        if "template" in change.get("spec", {}):
            return _failure(422, "Invalid")
        _merge(thing, change)
        self.touch(thing)
        return _json(thing)


@asynccontextmanager
async def serving(server: ApiServer):  # type: ignore[no-untyped-def]
    """Serve ``server`` on a free loopback port; yield what makes clients of service accounts."""
    handler = kmock.RawHandler()
    handler << server.serve
    clients: dict[str, AsyncClient] = {}
    async with handler, kmock.Server(handler) as listening:

        def client(account: str) -> AsyncClient:
            cluster = Cluster(server=str(listening.url), insecure=True)
            config = KubeConfig.from_one(cluster=cluster, user=User(token=account)).get()
            if account not in clients:
                clients[account] = AsyncClient(config, trust_env=False)
            return clients[account]

        yield client
        for each in clients.values():
            await each.close()


def stamp(when: datetime) -> str:
    """Return a time as Kubernetes writes it: whole seconds."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _matches(thing: Object, params: Any) -> bool:
    labels = thing["metadata"].get("labels", {})
    for pair in filter(None, params.get("labelSelector", "").split(",")):
        key, _, value = pair.partition("=")
        if labels.get(key) != value.lstrip("="):
            return False
    for pair in filter(None, params.get("fieldSelector", "").split(",")):
        path, _, value = pair.partition("=")
        at: Any = thing
        for part in path.split("."):
            at = at.get(part, {})
        if at != value.lstrip("="):
            return False
    return True


def _merge(into: Object, change: Object) -> None:
    """RFC 7396."""
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _status(status: int, reason: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "code": status,
        "reason": reason,
        "message": reason,
    }


def _failure(status: int, reason: str) -> kmock.Response:
    return _json(_status(status, reason), status)


def _answer(body: Object, refusal: Refusal) -> kmock.Response:
    return _json(body, refusal.status, refusal.headers)


def _json(body: Object, status: int = 200, headers: dict[str, str] | None = None) -> kmock.Response:
    named = {"Content-Type": "application/json", **(headers or {})}
    return kmock.Response(status=status, payload=json.dumps(body).encode(), headers=named)
