"""One fixture per port, once for each adapter of `tests.contracts.adapters`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.adapters import (
    IMAGE_STORES,
    JOB_STORES,
    QUEUES,
    ImageStores,
    JobStores,
    Queues,
)


@pytest.fixture(params=QUEUES.values(), ids=QUEUES.keys())
async def queues(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queues]:
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture(params=JOB_STORES.values(), ids=JOB_STORES.keys())
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStores]:
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture(params=IMAGE_STORES.values(), ids=IMAGE_STORES.keys())
async def images(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ImageStores]:
    async with request.param(tmp_path) as opened:
        yield opened
