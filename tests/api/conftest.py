"""The stack that most tests of the API begin with."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.api.stack import Stack, open_stack
from tests.live import Live, live


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with open_stack() as opened:
        yield opened


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A real server with a worker, for what other people's clients do."""
    with live(tmp_path_factory.mktemp("live")) as running:
        yield running
