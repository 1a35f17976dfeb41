"""A worker that one prompt kills: ``python -m tests.worker.killing_worker``."""

import os
import signal
import sys
from collections.abc import Sequence

from worker import wiring
from worker.engines.base import GenerationTask
from worker.engines.fake import FakeEngine

POISON = "what kills a worker"


def die(batch: Sequence[GenerationTask]) -> None:
    """End as a driver that crashes ends a process: at once, and saying nothing."""
    if any(task.generation.prompt == POISON for task in batch):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    wiring.open_engine = lambda settings, catalog: FakeEngine(fail=die)  # the one seam
    sys.exit(wiring.serve())
