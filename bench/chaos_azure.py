"""The chaos run's Azure backends: the broker and Azurite on this machine, behind breakable proxies.

The broker keeps its messages in a database, so that it can be killed -9 and started again on the
same ports; every connection of API and workers goes through a `FaultProxy`.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from azure.storage.blob.aio import BlobServiceClient

from bench.chaos_stack import ROOT, Stack, free_port
from bench.proxy import FaultProxy
from emulators import azurite

QUEUE = "chaos"
CONTAINER = "images"
CALM_LEASES = 2  # between two stretches without a broker, or a slow machine gets nothing done


class AzureBackends:
    """Service Bus, tables and blobs, emulated; data of the broker in ``folder``."""

    def __init__(self, folder: Path, lease_seconds: float, max_delivery_count: int) -> None:
        self._folder = folder
        self._config = folder / "broker.json"
        properties = {
            "LockDuration": f"PT{lease_seconds:g}S",
            "MaxDeliveryCount": max_delivery_count + 1,  # the spare delivery, see docs/worker.md
            "RequiresDuplicateDetection": True,
        }
        queues = [{"Name": QUEUE, "Properties": properties}]
        namespaces = [{"Name": "sbemulatorns", "Queues": queues}]
        self._config.write_text(json.dumps({"UserConfig": {"Namespaces": namespaces}}))
        self._ports = (free_port(), free_port())
        self._broker: subprocess.Popen[str] | None = None
        self._proxies: dict[str, FaultProxy] = {}
        self._blobs = ""
        self._calm_until = 0.0
        self.env: Mapping[str, str] = {}
        self.inspect_env: Mapping[str, str] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run broker, Azurite and the proxies before them."""
        async with contextlib.AsyncExitStack() as stack:
            connection = await asyncio.to_thread(self._start_broker)
            stack.callback(self._stop_broker)
            storage = await stack.enter_async_context(azurite.running())
            ports = {
                "amqp": self._ports[0],
                "blob": storage.blob_port,
                "table": storage.table_port,
            }
            for name, port in ports.items():
                proxy = FaultProxy(port)
                self._proxies[name] = await stack.enter_async_context(proxy.running())
            self._blobs = storage.connection_string
            self.inspect_env = _environment(connection, storage.connection_string)
            self.env = self._through_proxies(self.inspect_env, ports)
            yield

    def _through_proxies(self, env: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
        """Return ``env`` with every proxied port replaced."""
        changed = dict(env)
        for name, port in ports.items():
            for variable, value in changed.items():
                if not variable.endswith("ADMIN_CONNECTION_STRING"):
                    changed[variable] = value.replace(f":{port}", f":{self._proxies[name].port}")
        return changed

    def faults(
        self, rng: random.Random, stack: Stack, lease_seconds: float
    ) -> dict[str, Callable[[], Awaitable[bool]]]:
        """Return the faults that only these backends have; each tells whether it took place."""

        async def let_locks_expire() -> bool:
            """Hold all of the broker's traffic back for longer than a lock lives."""
            if time.monotonic() < self._calm_until:
                return False
            self._proxies["amqp"].blackhole(True)
            try:
                await asyncio.sleep(lease_seconds * 1.2)
            finally:
                self._proxies["amqp"].blackhole(False)
                self._calm_until = time.monotonic() + CALM_LEASES * lease_seconds
            return True

        async def cut_connections() -> bool:
            return self._proxies[rng.choice(list(self._proxies))].cut() > 0

        async def lose_answer() -> bool:
            self._proxies[rng.choice(("blob", "table"))].lose_answers += 1
            return True

        async def slow_storage() -> bool:
            proxy = self._proxies[rng.choice(("blob", "table"))]
            proxy.delay_seconds = 0.2
            try:
                await asyncio.sleep(2)
            finally:
                proxy.delay_seconds = 0.0
            return True

        return {
            "broker_killed": self._kill_broker,
            "lock_expired": let_locks_expire,
            "connections_cut": cut_connections,
            "storage_connection_lost": lose_answer,
            "storage_slowed": slow_storage,
        }

    async def images_of(self, job_id: str) -> set[str]:
        """Return the names stored for a job."""
        async with BlobServiceClient.from_connection_string(self._blobs) as client:
            listing = client.get_container_client(CONTAINER).list_blob_names(
                name_starts_with=f"{job_id}/"
            )
            return {name.rpartition("/")[2] async for name in listing}

    async def _kill_broker(self) -> bool:
        assert self._broker is not None
        self._broker.kill()
        self._broker.wait()
        await asyncio.to_thread(self._start_broker)
        return True

    def _start_broker(self) -> Mapping[str, str]:
        """Start the broker and return what it says of itself."""
        command = [sys.executable, "-m", "emulators.service_bus"]
        command += ["--port", str(self._ports[0]), "--admin-port", str(self._ports[1])]
        command += ["--config", str(self._config), "--database", str(self._folder / "broker.db")]
        self._broker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._broker.stdout is not None
        said: Mapping[str, str] = json.loads(self._broker.stdout.readline())
        return said

    def _stop_broker(self) -> None:
        if self._broker is not None:
            self._broker.terminate()
            self._broker.wait()


def _environment(broker: Mapping[str, str], storage: str) -> dict[str, str]:
    """Return the settings that reach the emulators directly."""
    return {
        "DARKROOM_QUEUE_URL": "servicebus://localhost",
        "DARKROOM_JOBSTORE_URL": f"aztables://{azurite.ACCOUNT}",
        "DARKROOM_IMAGESTORE_URL": f"azblob://{azurite.ACCOUNT}/{CONTAINER}",
        "SERVICEBUS_CONNECTION_STRING": broker["connection_string"],
        "SERVICEBUS_ADMIN_CONNECTION_STRING": broker["admin_connection_string"],
        "AZURE_STORAGE_CONNECTION_STRING": storage,
    }
