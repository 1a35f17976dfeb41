"""From settings to adapters: the only module of this package that knows every adapter.

URLs
    ``memory://`` stays inside this process. ``sqlite:///data/queue.db`` and ``file:///data/images``
    are relative to the working directory; a fourth slash makes the path absolute:
    ``sqlite:////srv/queue.db``. ``servicebus://NAMESPACE``, ``kubernetes://NAMESPACE``,
    ``aztables://ACCOUNT`` and ``azblob://ACCOUNT/CONTAINER`` need the extras ``azure`` and
    ``kubernetes``; their packages are imported when such a URL is opened.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

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


@dataclass(frozen=True)
class Backends:
    """What both tiers work with. ``queues`` are by pool name."""

    queues: Mapping[str, JobQueue]
    jobs: JobStore
    images: ImageStore

    async def close(self) -> None:
        """Release every connection."""
        for queue in self.queues.values():
            await queue.close()
        await self.jobs.close()
        await self.images.close()


@dataclass(frozen=True)
class _Request:
    """What the adapters of one family are made from."""

    variable: str
    url: SplitResult
    settings: DarkroomSettings
    names: tuple[str, ...]
    clock: Clock


def open_backends(
    settings: DarkroomSettings, catalog: Catalog, clock: Clock | None = None
) -> Backends:
    """Return the adapters that the URLs ask for; connections are made at their first use.

    Raises `SettingsError` that names the variable, `MissingExtra` that names the packages.
    """
    names = tuple(pool.name for pool in catalog.pools)

    def make(field: str, text: str, kinds: Mapping[str, Callable[[_Request], Made]]) -> Made:
        url, variable = urlsplit(text), f"DARKROOM_{field.upper()}"
        if url.scheme not in kinds:
            known = ", ".join(f"{scheme}://" for scheme in kinds)
            raise SettingsError(
                f"{variable}: {url.scheme or 'no'}:// is not known; there are {known}",
                target=variable,
            )
        return kinds[url.scheme](_Request(variable, url, settings, names, clock or SystemClock()))

    return Backends(
        queues=make("queue_url", settings.queue_url, QUEUES),
        jobs=make("jobstore_url", settings.jobstore_url, JOB_STORES),
        images=make("imagestore_url", settings.imagestore_url, IMAGE_STORES),
    )


def _memory_queues(asked: _Request) -> Mapping[str, JobQueue]:
    return {
        name: MemoryJobQueue(
            lease_seconds=asked.settings.lease_seconds,
            max_delivery_count=asked.settings.max_delivery_count,
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
            max_delivery_count=asked.settings.max_delivery_count,
            clock=asked.clock,
        )
        for name in asked.names
    }


def _service_bus_queues(asked: _Request) -> Mapping[str, JobQueue]:
    adapter = _adapter("darkroom.queues.service_bus", "azure", "servicebus://")
    return {name: adapter.open_queue(asked.url.netloc, name) for name in asked.names}


def _kubernetes_queues(asked: _Request) -> Mapping[str, JobQueue]:
    adapter = _adapter("darkroom.queues.kubernetes_jobs", "kubernetes", "kubernetes://")
    return {name: adapter.open_queue(asked.url.netloc, name) for name in asked.names}


def _sqlite_jobs(asked: _Request) -> JobStore:
    database = Database(_path(asked), sqlite_jobs.SCHEMA, StoreUnavailable)
    return sqlite_jobs.SqliteJobStore(database, asked.clock)


def _azure_jobs(asked: _Request) -> JobStore:
    adapter = _adapter("darkroom.jobstores.azure_tables", "azure", "aztables://")
    store: JobStore = adapter.open_store(asked.url.netloc, asked.clock)
    return store


def _azure_images(asked: _Request) -> ImageStore:
    adapter = _adapter("darkroom.imagestores.azure_blobs", "azure", "azblob://")
    store: ImageStore = adapter.open_store(asked.url.netloc, asked.url.path.strip("/"))
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


def _adapter(module: str, extra: str, needed_for: str) -> ModuleType:
    """Import an adapter whose vendor's packages may be missing. Raises `MissingExtra`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(extra, needed_for) from error
