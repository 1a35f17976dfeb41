"""Sites on the memory and on the SQLite adapters."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from darkroom.catalog import load_catalog
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues import sqlite as sqlite_queues
from darkroom.queues.memory import MemoryJobQueue
from darkroom.sqlite import Database
from tests.worker.site import MAX_DELIVERIES, POOL, Site, write_catalog

LEASE_SECONDS = 3.0
QUEUE_LIMIT = MAX_DELIVERIES + 1  # as settings.queue_delivery_limit has it


@pytest.fixture
def memory_site(tmp_path: Path) -> Site:
    """A site inside this process."""
    return Site(
        queue=MemoryJobQueue(lease_seconds=LEASE_SECONDS, max_delivery_count=QUEUE_LIMIT),
        jobs=MemoryJobStore(),
        images=MemoryImageStore(),
        catalog=load_catalog(write_catalog(tmp_path)),
    )


@pytest.fixture
async def sqlite_site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site in files."""
    queue = sqlite_queues.SqliteJobQueue(
        Database(tmp_path / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable),
        POOL,
        lease_seconds=LEASE_SECONDS,
        max_delivery_count=QUEUE_LIMIT,
    )
    jobs = sqlite_jobs.SqliteJobStore(
        Database(tmp_path / "jobs.db", sqlite_jobs.SCHEMA, StoreUnavailable)
    )
    yield Site(
        queue=queue,
        jobs=jobs,
        images=FilesystemImageStore(tmp_path / "images"),
        catalog=load_catalog(write_catalog(tmp_path)),
    )
    await queue.close()
    await jobs.close()


@pytest.fixture(params=["memory_site", "sqlite_site"])
def site(request: pytest.FixtureRequest) -> Site:
    """Each of the sites in turn."""
    chosen: Site = request.getfixturevalue(request.param)
    return chosen
