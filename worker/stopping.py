"""Why a job's work must end before it is done: set on the event loop, seen by the engine thread."""

import asyncio


class JobCanceled(Exception):
    """Somebody asked for the job to be canceled."""


class StopSignal:
    """Empty until `set`; the first reason stays.

    ``reason`` is one reference, so the engine thread may read it at every step without a lock.
    """

    def __init__(self) -> None:
        self.reason: Exception | None = None
        self._event = asyncio.Event()

    def set(self, reason: Exception) -> None:
        """Ask for the end. Call on the event loop."""
        if self.reason is None:
            self.reason = reason
            self._event.set()

    async def wait(self) -> Exception:
        """Return the reason, once there is one."""
        await self._event.wait()
        assert self.reason is not None
        return self.reason

    def check(self) -> None:
        """Raise the reason if there is one."""
        if self.reason is not None:
            raise self.reason

    async def pause(self, seconds: float) -> None:
        """Sleep for ``seconds``, or less if a reason comes; at least until the loop's next turn."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0)
