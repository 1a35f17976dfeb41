"""One process that `darkroom up` started: its log, what it said of itself, its end."""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from cli.tiers import WATCH_PARENT

MAX_LINE_BYTES = 2**20
READY_EVENTS = frozenset({"listening", "ready"})
LEVELS = ("debug", "info", "warning", "error", "critical")
_PLUMBING = frozenset({"event", "level", "timestamp", "component"})


class Child:
    """A running process. ``ready`` is done with the fields of the line that says so.

    Log lines below ``least_level`` are read but not shown.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, least_level: str) -> None:
        self.name = name
        self.process = process
        self._shown = LEVELS[LEVELS.index(least_level) :]
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.create_task(self._follow())

    async def _follow(self) -> int:
        """Pass the log on, line by line, to the end; return the exit status."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self._pass_on(line.decode(errors="replace").rstrip())
        return await self.process.wait()

    def _pass_on(self, line: str) -> None:
        fields = _fields(line)
        if fields.get("event") in READY_EVENTS and not self.ready.done():
            self.ready.set_result(fields)
        if fields and fields.get("level", "error") not in self._shown:
            return
        print(f"{self.name:<8} | {_readable(fields) if fields else line}", file=sys.stderr)

    def terminate(self) -> None:
        """Ask for an orderly stop; a process that has ended stays as it is."""
        if self.process.returncode is None:
            self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.process.kill()


async def start(
    name: str, tier: str, environment: Mapping[str, str], log_level: str = "info"
) -> Child:
    """Start a process of ``tier`` (api, worker, webhooks) that ends when this one does.

    Its readiness is a log line of level info, so it logs that whatever ``log_level`` shows. It
    gets a session of its own, so that a terminal's Ctrl-C reaches it through us alone.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli",
        tier,
        WATCH_PARENT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **environment,
            "DARKROOM_LOG_FORMAT": "json",
            "DARKROOM_LOG_LEVEL": "debug" if log_level == "debug" else "info",
        },
        start_new_session=True,
        limit=MAX_LINE_BYTES,
    )
    return Child(name, process, log_level)


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) and "event" in fields else {}


def _readable(fields: Mapping[str, Any]) -> str:
    time = str(fields.get("timestamp", ""))[11:19]
    told = " ".join(f"{name}={text}" for name, text in fields.items() if name not in _PLUMBING)
    return f"{time} {fields.get('level', ''):<7} {fields['event']} {told}".rstrip()
