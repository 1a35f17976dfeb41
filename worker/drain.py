"""Leaving in order: stop leasing at once, let the running job end, give back what does not."""

import asyncio

from darkroom.log import get_logger

log = get_logger()


class Drain:
    """The worker's way out, begun by SIGTERM or by an eviction notice.

    ``begun``: lease nothing more. ``over``: the ``grace_seconds`` after that have passed.
    """

    def __init__(self, grace_seconds: float) -> None:
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self._grace_seconds = grace_seconds

    def begin(self, reason: str) -> None:
        """Start leaving; a second call changes nothing. Call on the event loop."""
        if self.begun.is_set():
            return
        log.info("drain_begun", reason=reason, grace_seconds=self._grace_seconds)
        self.begun.set()
        asyncio.get_running_loop().call_later(self._grace_seconds, self.over.set)
