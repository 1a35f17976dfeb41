"""One server for the tests of this folder; its denoising steps take 10 ms."""

from collections.abc import Iterator

import pytest

from tests.live import Live, live
from worker.engines.fake import FakeEngine


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("live"), FakeEngine(step_seconds=0.01)) as running:
        yield running
