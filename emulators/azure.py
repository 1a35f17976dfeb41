"""`python -m emulators.azure`: Service Bus and storage together, for a whole product to run on.

Prints one JSON line of environment variables when both are ready, and ends on SIGTERM or SIGINT.
With `-- COMMAND` it prints nothing: it runs the command with those variables in its environment,
ends when the command ends, and returns its exit status.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from emulators import azurite
from emulators.processes import StartError
from emulators.service_bus.config import ConfigError, QueueSettings, load_config
from emulators.service_bus.server import Options, serving
from emulators.service_bus.store import StoreError


@asynccontextmanager
async def running(
    *,
    queues: Mapping[str, QueueSettings] | None = None,
    data: Path | None = None,
    free_ports: bool = True,
) -> AsyncIterator[dict[str, str]]:
    """Runs both for the length of the block; yields environment variables that point to them.

    `data` is a folder to keep everything in, None keeps it in memory. Without `free_ports` the
    usual ports are taken: 5672, 5300, 10000, 10002. Raises ConfigError, StoreError, StartError.
    """
    if data is not None:
        await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    options = Options(
        port=0 if free_ports else 5672,
        admin_port=0 if free_ports else 5300,
        queues=queues or {},
        database=data / "service-bus.db" if data else None,
    )
    async with (
        serving(options) as bus,
        azurite.running(
            blob_port=0 if free_ports else 10000,
            table_port=0 if free_ports else 10002,
            location=data / "azurite" if data else None,
        ) as storage,
    ):
        yield {
            "SERVICEBUS_CONNECTION_STRING": bus.endpoints.connection_string,
            "SERVICEBUS_ADMIN_CONNECTION_STRING": bus.endpoints.admin_connection_string,
            "AZURE_STORAGE_CONNECTION_STRING": storage.connection_string,
        }


async def _serve(queues: dict[str, QueueSettings], data: Path | None, *, free_ports: bool) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with running(queues=queues, data=data, free_ports=free_ports) as variables:
        print(json.dumps(variables), flush=True)
        await ended.wait()


async def _run(
    command: Sequence[str],
    queues: dict[str, QueueSettings],
    data: Path | None,
    *,
    free_ports: bool,
) -> int:
    """Runs a command on the emulators; they outlive it, whatever signal comes."""
    async with running(queues=queues, data=data, free_ports=free_ports) as variables:
        # Ctrl-C in a terminal reaches the command by itself; what is sent to us alone is passed on.
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        environment = {**os.environ, **variables}  # noqa: TID251 -- inherited by the command
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        loop.add_signal_handler(signal.SIGTERM, process.terminate)
        return await process.wait()


def main() -> int:
    """Reads the command line and serves; returns the exit status."""
    parser = argparse.ArgumentParser(prog="emulators.azure", description=__doc__)
    parser.add_argument("--config", type=Path, help="queues, as Microsoft's Config.json")
    parser.add_argument("--queue", action="append", default=[], help="a queue with defaults")
    parser.add_argument("--data", type=Path, help="keep everything here; without it, in memory")
    parser.add_argument("--free-ports", action="store_true", help="any ports, not the usual ones")
    parser.add_argument("command", nargs="*", help="after --: what to run on the emulators")
    arguments = parser.parse_args()
    try:
        queues = load_config(arguments.config) if arguments.config else {}
        for name in arguments.queue:
            queues.setdefault(name, QueueSettings())
        if arguments.command:
            return asyncio.run(
                _run(arguments.command, queues, arguments.data, free_ports=arguments.free_ports)
            )
        asyncio.run(_serve(queues, arguments.data, free_ports=arguments.free_ports))
    except (ConfigError, StoreError, StartError, OSError) as error:
        print(f"emulators.azure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
