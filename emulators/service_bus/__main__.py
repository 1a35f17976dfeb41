"""`python -m emulators.service_bus`: the emulator as a process.

Prints one JSON line when it is ready, exits 0 on SIGTERM or SIGINT, 2 on wrong options, 1 when
its database fails.
"""

import argparse
import asyncio
import json
import logging
import signal
import sqlite3
import sys
from dataclasses import asdict
from pathlib import Path

from emulators.service_bus.cbs import SERVICE_BUS_AUDIENCE, JwtPolicy
from emulators.service_bus.config import ConfigError, QueueSettings, load_config
from emulators.service_bus.server import EMULATOR_KEY, KEY_NAME, Options, serving
from emulators.service_bus.store import StoreError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emulators.service_bus", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--expose", action="store_true", help="allow a host off the loopback")
    parser.add_argument("--port", type=int, default=5672, help="AMQP; 0 takes a free one")
    parser.add_argument("--admin-port", type=int, default=5300, help="admin API; 0 as above")
    parser.add_argument("--admin-tls-cert", type=Path, help="PEM; the admin API speaks https")
    parser.add_argument("--admin-tls-key", type=Path, help="PEM")
    parser.add_argument("--config", type=Path, help="queues, as Microsoft's Config.json")
    parser.add_argument("--queue", action="append", default=[], help="a queue with defaults")
    parser.add_argument("--database", type=Path, help="SQLite file; without it, memory only")
    parser.add_argument("--key-name", default=KEY_NAME)
    parser.add_argument("--key", default=EMULATOR_KEY, help="the shared access key")
    parser.add_argument("--jwt-audience", default=SERVICE_BUS_AUDIENCE)
    parser.add_argument("--jwt-key-file", type=Path, help="PEM or secret that signs tokens")
    parser.add_argument("--no-jwt", action="store_true", help="refuse Entra tokens")
    parser.add_argument("--log-level", default="WARNING", choices=("DEBUG", "INFO", "WARNING"))
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    queues = load_config(arguments.config) if arguments.config else {}
    for name in arguments.queue:
        queues.setdefault(name, QueueSettings())
    key_file: Path | None = arguments.jwt_key_file
    key = key_file.read_text(encoding="utf-8") if key_file else None
    return Options(
        host=arguments.host,
        port=arguments.port,
        admin_port=arguments.admin_port,
        expose=arguments.expose,
        queues=queues,
        database=arguments.database,
        admin_tls_cert=arguments.admin_tls_cert,
        admin_tls_key=arguments.admin_tls_key,
        key_name=arguments.key_name,
        key=arguments.key,
        jwt=None if arguments.no_jwt else JwtPolicy(arguments.jwt_audience, key),
    )


async def _run(options: Options) -> int:
    """Serves until a signal (0) or a failure of the store (1)."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[int] = loop.create_future()

    def finish(code: int) -> None:
        if not end.done():
            end.set_result(code)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, finish, 0)
    async with serving(options, on_failure=lambda error: finish(1)) as emulator:
        print(json.dumps(asdict(emulator.endpoints)), flush=True)
        return await end


def main() -> int:
    """Reads the command line and serves; returns the exit status."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=arguments.log_level, stream=sys.stderr)
    try:
        return asyncio.run(_run(_options(arguments)))
    except (ConfigError, StoreError, OSError) as error:
        print(f"emulators.service_bus: {error}", file=sys.stderr)
        return 2
    except sqlite3.Error as error:
        print(f"emulators.service_bus: the database failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
