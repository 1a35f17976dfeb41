"""One fixture per port, once for each adapter of `tests.contracts.adapters`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.azure.emulated import azurite
from tests.contracts.adapters import (
    AZURITE_IMAGE_STORES,
    AZURITE_JOB_STORES,
    IMAGE_STORES,
    JOB_STORES,
    QUEUES,
    ImageStores,
    JobStores,
    Queues,
)

__all__ = ["azurite"]  # the session's fixture


@pytest.fixture(params=QUEUES.values(), ids=QUEUES.keys())
async def queues(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queues]:
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture(params=[*JOB_STORES, *AZURITE_JOB_STORES])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStores]:
    if request.param in JOB_STORES:
        opening = JOB_STORES[request.param](tmp_path)
    else:
        opening = AZURITE_JOB_STORES[request.param](tmp_path, request.getfixturevalue("azurite"))
    async with opening as opened:
        yield opened


@pytest.fixture(params=[*IMAGE_STORES, *AZURITE_IMAGE_STORES])
async def images(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ImageStores]:
    if request.param in IMAGE_STORES:
        opening = IMAGE_STORES[request.param](tmp_path)
    else:
        opening = AZURITE_IMAGE_STORES[request.param](tmp_path, request.getfixturevalue("azurite"))
    async with opening as opened:
        yield opened
