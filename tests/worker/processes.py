"""Real worker processes on one machine's files."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.worker.site import write_catalog

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class WorkerProcess:
    """A `python -m worker`, and what it has logged so far."""

    process: asyncio.subprocess.Process
    events: list[dict[str, Any]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if line.startswith(b"{"):
                self.events.append(json.loads(line))
            else:
                self.events.append({"event": line.decode(errors="replace").rstrip()})
            self._news.set()

    async def logged(self, event: str, seconds: float = 30.0) -> dict[str, Any]:
        """Wait for a log line."""
        async with asyncio.timeout(seconds):
            while True:
                self._news.clear()
                for line in self.events:
                    if line["event"] == event:
                        return line
                await self._news.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self, seconds: float = 30.0) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()


class Machine:
    """One folder that several processes share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = {
            "DARKROOM_QUEUE_URL": f"sqlite:///{folder}/queue.db",
            "DARKROOM_JOBSTORE_URL": f"sqlite:///{folder}/jobs.db",
            "DARKROOM_IMAGESTORE_URL": f"file:///{folder}/images",
            "DARKROOM_CATALOG": str(write_catalog(folder, max_gpu_seconds=0.1)),
            "DARKROOM_LEASE_SECONDS": "2",
            "DARKROOM_RENEW_SECONDS": "0.5",
            "DARKROOM_WORKER_ENGINE": "fake",
            "DARKROOM_WORKER_POLL_SECONDS": "0.2",
        }

    @asynccontextmanager
    async def worker(
        self, module: str = "worker", /, **settings: Any
    ) -> AsyncIterator[WorkerProcess]:
        """Run a worker until the block ends; ``settings`` are DARKROOM_WORKER_ ones."""
        mine = {f"DARKROOM_WORKER_{name.upper()}": str(value) for name, value in settings.items()}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("DARKROOM_")}  # noqa: TID251
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            cwd=ROOT,
            env={**clean, **self.settings, **mine, "OMP_NUM_THREADS": "1"},
            stderr=asyncio.subprocess.PIPE,
        )
        running = WorkerProcess(process)
        listener = asyncio.create_task(running.listen())
        try:
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await listener
