"""The images of both tiers, for the tests that look into them and those that run them."""

from collections.abc import Iterator

import pytest

from darkroom import __version__
from tests.packaging.containers import Image, mounted, why_not


def image(tier: str) -> Iterator[Image]:
    named = f"localhost/darkroom-{tier}:{__version__}"
    if (reason := why_not(named)) is not None:
        pytest.skip(reason)
    with mounted(named) as found:
        yield found


@pytest.fixture(scope="module")
def api() -> Iterator[Image]:
    yield from image("api")


@pytest.fixture(scope="module")
def worker() -> Iterator[Image]:
    yield from image("worker")
