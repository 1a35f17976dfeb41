"""`darkroom up`: one API process and the workers of every pool, on one machine.

Where webhooks can be signed, a sender too.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from api.webhooks.settings import WebhookSettings
from cli.children import Child, start
from cli.problems import CommandFailed
from cli.settings import child_environment
from darkroom.catalog import load_catalog
from darkroom.settings import DarkroomSettings, load

READYZ_POLL_SECONDS = 0.1
STOPPED_BY_US = (0, -signal.SIGTERM)


def serve(*, port: int, workers: int, data_dir: Path | None, catalog: Path | None) -> None:
    """Run until Ctrl-C or SIGTERM, or until a process dies. Raises `CommandFailed`."""
    settings = load(DarkroomSettings)
    pools = [pool.name for pool in load_catalog(catalog or settings.catalog).pools]
    if data_dir is None and settings.queue_url.startswith("memory:"):
        raise CommandFailed("DARKROOM_QUEUE_URL: memory:// cannot be shared by several processes")
    environment = child_environment(data_dir=data_dir, catalog=catalog)
    sends = load(WebhookSettings).secrets_file is not None
    asyncio.run(_Up(port, pools, workers, environment, settings.log_level, sends).run())


class _Up:
    """The processes and the wish to stop them."""

    def __init__(
        self,
        port: int,
        pools: Sequence[str],
        workers: int,
        environment: dict[str, str],
        log_level: str,
        sends_webhooks: bool,
    ) -> None:
        self._port = port
        self._pools = pools
        self._workers = workers
        self._environment = environment
        self._log_level = log_level
        self._sends_webhooks = sends_webhooks
        self._children: list[Child] = []
        self._signals = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self._start()
            await self._until_over()
            died = None if self._stop.is_set() else self._first_ended()
        finally:
            await self._stop_all()
        self._conclude(died)

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals == 1:
            if number == signal.SIGINT:  # somebody sits at the keys
                print("darkroom: stopping; Ctrl-C again to kill", file=sys.stderr)
            self._stop.set()
            return
        for child in self._children:
            child.kill()

    async def _start(self) -> None:
        api = {**self._environment, "DARKROOM_API_PORT": str(self._port)}
        self._children.append(await start("api", "api", api, self._log_level))
        threads = str(max(1, (os.cpu_count() or 1) // (2 * self._workers * len(self._pools))))
        for pool in self._pools:
            for index in range(self._workers):
                worker = {
                    # Half of the CPUs, shared: threads that compete make torch ten times slower.
                    "DARKROOM_WORKER_TORCH_THREADS": threads,
                    # Its advice about optional packages is not for who runs this command.
                    "TRANSFORMERS_VERBOSITY": "error",
                    **self._environment,
                    "DARKROOM_WORKER_POOL": pool,
                }
                name = pool if self._workers == 1 else f"{pool}-{index + 1}"
                self._children.append(await start(name, "worker", worker, self._log_level))
        if self._sends_webhooks:
            sender = await start("webhooks", "webhooks", self._environment, self._log_level)
            self._children.append(sender)

    async def _until_over(self) -> None:
        """Return when somebody asked us to stop, or a process has ended."""
        ended = [child.ended for child in self._children]
        over: list[asyncio.Task[Any]] = [asyncio.create_task(self._stop.wait()), *ended]
        ready = asyncio.create_task(self._announce())
        await asyncio.wait([ready, *over], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def _announce(self) -> None:
        """Print the page's address once every process is ready."""
        api, *_ = [await child.ready for child in self._children]
        workers = self._workers * len(self._pools)
        url = str(api["url"])
        async with httpx.AsyncClient(base_url=url) as client:
            while not await _is_ready(client):  # noqa: ASYNC110 -- HTTP has no event to wait for
                await asyncio.sleep(READYZ_POLL_SECONDS)
        print(f"darkroom: ready at {url}/ with {workers} worker(s)", flush=True)

    def _first_ended(self) -> Child:
        return next(child for child in self._children if child.ended.done())

    async def _stop_all(self) -> None:
        for child in self._children:
            child.terminate()
        await asyncio.gather(*(child.ended for child in self._children))

    def _conclude(self, died: Child | None) -> None:
        if died is not None:
            raise CommandFailed(f"{died.name} ended by itself with status {died.ended.result()}")
        if self._signals > 1:
            raise CommandFailed("killed before every job in hand had ended", 130)
        for child in self._children:
            if child.ended.result() not in STOPPED_BY_US:
                raise CommandFailed(f"{child.name} stopped with status {child.ended.result()}")
        print("darkroom: stopped", file=sys.stderr)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).is_success
    except httpx.TransportError:
        return False
