"""One worker process on each device: started, started again when it fails, and told to go.

A GPU that failed for good is of no use to its process alone, and neither is an out-of-memory kill
to its neighbours: so each device has a process of its own, which sees no other device.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from darkroom.log import get_logger
from worker.devices import Device

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
SETTLED_SECONDS = 120.0
"""A process that has lived for so long starts again at the shortest pause when it fails."""

COMMAND = (sys.executable, "-m", "cli", "worker", "--watch-parent")
"""A worker that ends when we do, however we go: it holds a pipe from us."""

STOPPED_BY_US = (0, -signal.SIGTERM, -signal.SIGKILL)

log = get_logger()


class Supervisor:
    """Runs ``command`` once per device until SIGTERM, or until all have ended by themselves.

    ``environments`` holds each child's variables. A child that ends with a status other than 0 is
    started again after a pause in seconds that doubles from ``first_pause`` to ``longest_pause``.
    """

    def __init__(
        self,
        environments: Mapping[Device, Mapping[str, str]],
        command: Sequence[str] = COMMAND,
        first_pause: float = FIRST_PAUSE_SECONDS,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self._environments = environments
        self._command = command
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._running: dict[Device, asyncio.subprocess.Process] = {}
        self.pausing = 0  # how many devices wait for their worker's new start
        self._leaving = asyncio.Event()

    async def run(self) -> int:
        """Return 0 once every child has ended in order, 1 when one had to be killed or failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        ends = await asyncio.gather(
            *(self._keep(device, each) for device, each in self._environments.items())
        )
        log.info("devices_drained", devices=len(ends))
        return 0 if all(end in STOPPED_BY_US for end in ends) else 1

    def _on_signal(self, number: int) -> None:
        """Pass it on; a second one kills."""
        again = self._leaving.is_set()
        self._leaving.set()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL if again else number)

    async def _keep(self, device: Device, environment: Mapping[str, str]) -> int:
        """Keep a worker running on ``device``; return its last exit status."""
        pause = self._first_pause
        status = 0
        while not self._leaving.is_set():
            started = time.monotonic()
            status = await self._once(device, environment)
            if status == 0 or self._leaving.is_set():
                break
            if time.monotonic() - started > SETTLED_SECONDS:
                pause = self._first_pause
            log.warning(
                "worker_failed", gpu=device.uuid, status=status, starts_again_in_seconds=pause
            )
            await self._rest(pause)
            pause = min(2 * pause, self._longest_pause)
        return status

    async def _once(self, device: Device, environment: Mapping[str, str]) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, env=dict(environment)
        )
        self._running[device] = process
        if self._leaving.is_set():  # the signal came while it was being started
            process.terminate()
        log.info("worker_started", gpu=device.uuid, device=device.name, pid=process.pid)
        try:
            return await process.wait()
        finally:
            del self._running[device]

    async def _rest(self, seconds: float) -> None:
        self.pausing += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        self.pausing -= 1
