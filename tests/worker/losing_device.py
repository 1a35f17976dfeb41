"""A worker whose GPU fails at its first picture: ``python -m tests.worker.losing_device``."""

import sys
from typing import Any

from darkroom.errors import DeviceLost
from worker import wiring
from worker.engines.fake import FakeEngine


def fail(batch: Any) -> None:
    """Say what an engine says of a GPU that is gone."""
    raise DeviceLost("the GPU failed: device-side assert triggered")


if __name__ == "__main__":
    wiring.open_engine = lambda settings, catalog: FakeEngine(fail=fail)  # the one seam
    sys.exit(wiring.serve())
