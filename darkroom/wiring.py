"""From settings to adapters: the only module of this package that knows every adapter.

URLs
    ``memory://`` stays inside this process. ``sqlite:///data/queue.db`` and ``file:///data/images``
    are relative to the working directory; a fourth slash makes the path absolute:
    ``sqlite:////srv/queue.db``. ``servicebus://NAMESPACE``, ``aztables://ACCOUNT`` and
    ``azblob://ACCOUNT/CONTAINER`` need the extra ``azure``; its packages are imported when such a
    URL is opened.
    ``kubernetes://NAMESPACE/PREFIX`` needs the extra ``kubernetes``; ``PREFIX`` starts the names of
    the chart's objects, and is ``darkroom`` where it is left out.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from darkroom import webhooks
from darkroom.announcing import AnnouncingJobStore
from darkroom.catalog import Catalog
from darkroom.clock import Clock, SystemClock
from darkroom.errors import MissingExtra, QueueUnavailable, SettingsError, StoreUnavailable
from darkroom.imagestores.base import ImageStore
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.jobstores.base import JobStore
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues import sqlite as sqlite_queues
from darkroom.queues.base import JobQueue
from darkroom.queues.memory import MemoryJobQueue
from darkroom.settings import DarkroomSettings
from darkroom.sqlite import Database

Made = TypeVar("Made")


class Closable(Protocol):
    """What holds connections."""

    async def close(self) -> None:
        """Release them."""
        ...


@dataclass(frozen=True)
class Backends:
    """What both tiers work with. ``queues`` are by pool name.

    ``webhooks`` carries the events of ended jobs; None where the kind of queue cannot.
    """

    queues: Mapping[str, JobQueue]
    jobs: JobStore
    images: ImageStore
    webhooks: JobQueue | None = None
    shared: Sequence[Closable] = ()
    """What adapters work with but do not own, such as credentials; closed after them."""

    async def close(self) -> None:
        """Release every connection, whether or not another refuses to be released."""
        async with AsyncExitStack() as closing:  # in the reverse of this order
            queues = [*self.queues.values(), *([self.webhooks] if self.webhooks else [])]
            for each in (*self.shared, self.images, self.jobs, *queues):
                closing.push_async_callback(each.close)


@dataclass(frozen=True)
class _Request:
    """What the adapters of one family are made from."""

    variable: str
    url: SplitResult
    settings: DarkroomSettings
    names: tuple[str, ...]
    clock: Clock
    shared: list[Closable] = field(default_factory=list)


def open_backends(
    settings: DarkroomSettings, catalog: Catalog, clock: Clock | None = None
) -> Backends:
    """Return the adapters that the URLs ask for; connections are made at their first use.

    Raises `SettingsError` that names the variable, `MissingExtra` that names the packages.
    """
    names = (*(pool.name for pool in catalog.pools), webhooks.QUEUE_NAME)
    if len(set(names)) < len(names):
        raise SettingsError(
            f"DARKROOM_CATALOG: no pool can be called {webhooks.QUEUE_NAME}, the events' queue",
            target="DARKROOM_CATALOG",
        )
    clock = clock or SystemClock()
    shared: list[Closable] = []

    def make(setting: str, text: str, kinds: Mapping[str, Callable[[_Request], Made]]) -> Made:
        url, variable = urlsplit(text), f"DARKROOM_{setting.upper()}"
        if url.scheme not in kinds:
            known = ", ".join(f"{scheme}://" for scheme in kinds)
            raise SettingsError(
                f"{variable}: {url.scheme or 'no'}:// is not known; there are {known}",
                target=variable,
            )
        asked = _Request(variable, url, settings, names, clock, shared)
        return kinds[url.scheme](asked)

    queues = dict(make("queue_url", settings.queue_url, QUEUES))
    events = queues.pop(webhooks.QUEUE_NAME, None)
    jobs = make("jobstore_url", settings.jobstore_url, JOB_STORES)
    return Backends(
        queues=queues,
        jobs=AnnouncingJobStore(jobs, events, clock) if events else jobs,
        images=make("imagestore_url", settings.imagestore_url, IMAGE_STORES),
        webhooks=events,
        shared=shared,
    )


def _memory_queues(asked: _Request) -> Mapping[str, JobQueue]:
    return {
        name: MemoryJobQueue(
            lease_seconds=asked.settings.lease_seconds,
            max_delivery_count=asked.settings.delivery_limit(name),
            clock=asked.clock,
        )
        for name in asked.names
    }


def _sqlite_queues(asked: _Request) -> Mapping[str, JobQueue]:
    database = Database(_path(asked), sqlite_queues.SCHEMA, QueueUnavailable)
    return {
        name: sqlite_queues.SqliteJobQueue(
            database,
            name,
            lease_seconds=asked.settings.lease_seconds,
            max_delivery_count=asked.settings.delivery_limit(name),
            clock=asked.clock,
        )
        for name in asked.names
    }


def _service_bus_queues(asked: _Request) -> Mapping[str, JobQueue]:
    azure = _adapters("darkroom.azure_wiring", "azure", "servicebus://")
    queues: Mapping[str, JobQueue]
    queues, shared = azure.open_queues(_host(asked), asked.names, asked.settings, asked.clock)
    asked.shared.extend(shared)
    return queues


def _kubernetes_queues(asked: _Request) -> Mapping[str, JobQueue]:
    kubernetes = _adapters("darkroom.kubernetes_wiring", "kubernetes", "kubernetes://")
    pools = [name for name in asked.names if name != webhooks.QUEUE_NAME]  # no Job sends a webhook
    prefix = asked.url.path.strip("/")
    queues: Mapping[str, JobQueue]
    queues, shared = kubernetes.open_queues(
        _host(asked), prefix, pools, asked.settings, asked.clock
    )
    asked.shared.extend(shared)
    return queues


def _sqlite_jobs(asked: _Request) -> JobStore:
    database = Database(_path(asked), sqlite_jobs.SCHEMA, StoreUnavailable)
    return sqlite_jobs.SqliteJobStore(database, asked.clock)


def _azure_jobs(asked: _Request) -> JobStore:
    azure = _adapters("darkroom.azure_wiring", "azure", "aztables://")
    store: JobStore
    store, shared = azure.open_jobs(_host(asked), asked.clock)
    asked.shared.extend(shared)
    return store


def _azure_images(asked: _Request) -> ImageStore:
    azure = _adapters("darkroom.azure_wiring", "azure", "azblob://")
    container = asked.url.path.strip("/")
    if not container:
        raise SettingsError(
            f"{asked.variable}: write azblob://ACCOUNT/CONTAINER", target=asked.variable
        )
    store: ImageStore
    store, shared = azure.open_images(_host(asked), container, asked.clock)
    asked.shared.extend(shared)
    return store


QUEUES: Mapping[str, Callable[[_Request], Mapping[str, JobQueue]]] = {
    "memory": _memory_queues,
    "sqlite": _sqlite_queues,
    "servicebus": _service_bus_queues,
    "kubernetes": _kubernetes_queues,
}
JOB_STORES: Mapping[str, Callable[[_Request], JobStore]] = {
    "memory": lambda asked: MemoryJobStore(asked.clock),
    "sqlite": _sqlite_jobs,
    "aztables": _azure_jobs,
}
IMAGE_STORES: Mapping[str, Callable[[_Request], ImageStore]] = {
    "memory": lambda asked: MemoryImageStore(),
    "file": lambda asked: FilesystemImageStore(_path(asked)),
    "azblob": _azure_images,
}


def _path(asked: _Request) -> Path:
    """Return the path of a URL as SQLAlchemy reads it: three slashes relative, four absolute."""
    url = asked.url
    if url.netloc or len(url.path) < 2:
        raise SettingsError(
            f"{asked.variable}: write {url.scheme}:///relative/path"
            f" or {url.scheme}:////absolute/path",
            target=asked.variable,
        )
    return Path(url.path[1:])


def _host(asked: _Request) -> str:
    """Return the account, namespace or host that a URL names."""
    if not asked.url.netloc:
        raise SettingsError(
            f"{asked.variable}: {asked.url.scheme}:// must be followed by a name",
            target=asked.variable,
        )
    return asked.url.netloc


def _adapters(module: str, extra: str, needed_for: str) -> ModuleType:
    """Import adapters whose vendor's packages may be missing. Raises `MissingExtra`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(extra, needed_for) from error
