"""The emulator as a child process, for tests and tools that want to kill it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emulators.processes import StartError, child
from emulators.service_bus.server import Endpoints

START_SECONDS: Final = 30.0
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class EmulatorProcess:
    """A running emulator of another process; `process.kill()` is a kill -9."""

    endpoints: Endpoints
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running(
    *,
    queues: Sequence[str] = (),
    config: Path | None = None,
    database: Path | None = None,
    port: int = 0,
    admin_port: int = 0,
    arguments: Sequence[str] = (),
) -> AsyncIterator[EmulatorProcess]:
    """Runs `python -m emulators.service_bus` for the length of the block and always stops it.

    `queues` get default settings, `config` is a Config.json, `arguments` are further switches.
    Raises StartError when it does not become ready in 30 s.
    """
    command = [sys.executable, "-m", "emulators.service_bus"]
    command += ["--port", str(port), "--admin-port", str(admin_port), *arguments]
    for name in queues:
        command += ["--queue", name]
    if config is not None:
        command += ["--config", str(config)]
    if database is not None:
        command += ["--database", str(database)]
    async with child(command, cwd=_ROOT) as process:
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        except TimeoutError as error:
            raise StartError(f"the emulator was not ready in {START_SECONDS} s") from error
        if not line:
            raise StartError(f"the emulator ended with {await process.wait()}")
        yield EmulatorProcess(Endpoints(**json.loads(line)), process)
