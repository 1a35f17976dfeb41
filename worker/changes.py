"""What two loops wait for together: that something has changed."""

import asyncio
import math
from contextlib import suppress


class Changes:
    """A bell. Who looks at the state and finds nothing to do waits for the next stroke.

    On one event loop nothing is missed, so long as nothing is awaited between look and wait.
    """

    def __init__(self) -> None:
        self._stroke = asyncio.Event()

    def notify(self) -> None:
        """Wake everybody who waits."""
        self._stroke.set()
        self._stroke = asyncio.Event()

    async def wait(self, seconds: float = math.inf) -> None:
        """Return at the next stroke, or after ``seconds``."""
        stroke = self._stroke
        with suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await stroke.wait()
