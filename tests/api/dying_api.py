"""The API, which kills itself with SIGKILL right after one chosen effect of a submit.

``python -m tests.api.dying_api`` serves once for each of `EFFECTS`, one process after the other.
They are forked from one that has imported everything, which saves most of their start.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from api.app import create_app
from api.settings import ApiSettings
from api.state import make_state
from api.wiring import listen, run
from darkroom import log
from darkroom.catalog import load_catalog
from darkroom.clock import SystemClock
from darkroom.settings import DarkroomSettings, load
from darkroom.wiring import open_backends

EFFECTS = {"inputs": "put", "create": "create", "send": "send", "mark": "compare_and_set"}


class Dying:
    """An adapter whose ``method`` does its work, and is the last thing that happens."""

    def __init__(self, adapter: Any, method: str) -> None:
        self._adapter = adapter
        self._method = method

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._adapter, name)
        if name != self._method:
            return real

        async def last(*args: Any, **kwargs: Any) -> None:
            await real(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        return last


def serve(effect: str) -> None:
    """Serve until the effect has happened."""
    settings, shared = load(ApiSettings), load(DarkroomSettings)
    log.configure("info", "json", "api")
    catalog, clock = load_catalog(shared.catalog), SystemClock()
    backends = open_backends(shared, catalog, clock)
    method = EFFECTS[effect]
    jobs: Any = Dying(backends.jobs, method)
    images: Any = Dying(backends.images, method)
    queues: Any = {pool: Dying(queue, method) for pool, queue in backends.queues.items()}
    state = make_state(
        settings=settings,
        region=shared.region,
        catalog=catalog,
        jobs=jobs,
        images=images,
        queues=queues,
        clock=clock,
    )
    asyncio.run(run(create_app(state), settings, listen(settings)))


def main() -> int:
    """Serve each effect in a process of its own; return 0 if each died by SIGKILL."""
    ends = []
    for effect in EFFECTS:
        child = os.fork()
        if child == 0:
            serve(effect)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        ends.append(os.waitstatus_to_exitcode(status))
    return 0 if set(ends) == {-signal.SIGKILL} else 1


if __name__ == "__main__":
    sys.exit(main())
