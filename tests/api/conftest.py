"""The stack that most tests of the API begin with."""

from collections.abc import AsyncIterator

import pytest

from tests.api.stack import Stack, open_stack


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with open_stack() as opened:
        yield opened
