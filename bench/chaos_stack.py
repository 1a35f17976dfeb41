"""The processes of a chaos run: real API and workers, to be killed, frozen and started again."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """One API and some workers on the backends that ``env`` names. ``rate``: see `Faults`."""

    def __init__(
        self, env: Mapping[str, str], *, workers: int, seed: int, rate: float, folder: Path
    ) -> None:
        self.api_port = free_port()
        self.ledger = folder / "faults.txt"
        self._log = (folder / "log.txt").open("ab")
        self._env = {**os.environ, "OMP_NUM_THREADS": "1", **env}  # noqa: TID251 - inherited
        self._env["DARKROOM_API_PORT"] = str(self.api_port)
        self._seed = seed
        self._rate = rate
        self._names = ["api", *(f"worker-{number}" for number in range(workers))]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, float] = {}
        self._start_seconds = 0.0
        self._starts = 0

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def workers(self) -> list[str]:
        """The workers' names."""
        return self._names[1:]

    def start(self, name: str) -> None:
        """Start a process by name, with a fault seed of its own."""
        self._starts += 1
        self._started_at[name] = time.monotonic()
        seed = self._seed * 1_000 + self._starts
        tier = "api" if name == "api" else "worker"
        arguments = [tier, str(seed), str(self._rate), str(self.ledger)]
        self._processes[name] = subprocess.Popen(
            [sys.executable, "-m", "bench.chaos_node", *arguments],
            cwd=ROOT,
            env=self._env,
            stdout=self._log,
            stderr=self._log,
        )

    def kill(self, name: str) -> bool:
        """Kill -9, and start it anew; leave alone what can hardly have started yet.

        The time that the first start took says how slow this machine is: on a busy one, a process
        that is killed again and again before it works would break nothing and end nothing.
        """
        if time.monotonic() - self._started_at[name] < 2 * self._start_seconds:
            return False
        process = self._processes[name]
        process.kill()
        process.wait()
        self.start(name)
        return True

    def revive(self) -> int:
        """Start again what ended by itself; return how many did."""
        ended = [name for name, process in self._processes.items() if process.poll() is not None]
        for name in ended:
            self.start(name)
        return len(ended)

    async def freeze(self, name: str, seconds: float) -> None:
        """Stop a process's clock for ``seconds``; it wakes as a zombie if its lease ran out."""
        process = self._processes[name]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)

    async def start_all(self) -> None:
        """Start everything and wait until the API answers."""
        began = time.monotonic()
        for name in self._names:
            self.start(name)
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/livez")).status_code == 200:
                        self._start_seconds = time.monotonic() - began
                        return
                await asyncio.sleep(0.1)
        raise TimeoutError("the API did not answer within a minute; see its log")

    def stop_all(self) -> None:
        """End every process: politely, then not."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()
