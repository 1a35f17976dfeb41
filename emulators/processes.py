"""Child processes that end with us: asked first, then killed, and gone even if we are killed."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 3.0


class StartError(Exception):
    """A process did not become ready; the message says what it printed last."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def stop(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, then after three seconds SIGKILL, to the whole process group; then reaps it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):  # it may end between the two lines
            os.killpg(process.pid, number)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            continue


@asynccontextmanager
async def child(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in a group of its own, with pipes as stdin and stdout, stopped at the block's end.

    Its stdin stays open as long as we live: a child that watches it can end with us. stderr goes
    to `log`, or to ours.
    """
    stderr = log.open("ab") if log else None
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=dict(environment) if environment is not None else None,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    finally:
        if stderr is not None:
            stderr.close()
    try:
        yield process
    finally:
        await asyncio.shield(stop(process))


async def wait_for_port(
    process: asyncio.subprocess.Process, port: int, timeout_seconds: float
) -> None:
    """Returns once 127.0.0.1:`port` accepts a connection; raises StartError if it never does."""
    end = asyncio.get_running_loop().time() + timeout_seconds
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            if process.returncode is not None:
                raise StartError(f"the process ended with {process.returncode}") from error
            if asyncio.get_running_loop().time() > end:
                raise StartError(f"no answer on port {port} in {timeout_seconds} s") from error
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
