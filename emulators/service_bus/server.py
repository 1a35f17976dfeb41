"""Listening: the broker on its AMQP port, the admin API on its own, and how to reach both."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp import web

from emulators.service_bus.admin import AdminApi
from emulators.service_bus.broker import MAX_MESSAGE_BYTES, Broker
from emulators.service_bus.cbs import Authority, JwtPolicy
from emulators.service_bus.config import ConfigError, QueueSettings
from emulators.service_bus.engine import Connection
from emulators.service_bus.store import MemoryStore, SqliteStore

KEY_NAME: Final = "RootManageSharedAccessKey"
EMULATOR_KEY: Final = "SAS_KEY_VALUE"
"""The key of Microsoft's emulator, the word itself; no secret."""

logger = logging.getLogger(__name__)


def now_ms() -> int:
    """Milliseconds since 1970, by the wall clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """How to run an emulator; port 0 takes a free one.

    `host` is refused off the loopback unless `expose` is set: the key is no secret. `database`
    None keeps everything in memory. `jwt` None refuses Entra tokens.
    """

    host: str = "127.0.0.1"
    port: int = 0
    admin_port: int = 0
    expose: bool = False
    queues: Mapping[str, QueueSettings] = field(default_factory=dict)
    database: Path | None = None
    admin_tls_cert: Path | None = None
    admin_tls_key: Path | None = None
    key_name: str = KEY_NAME
    key: str = EMULATOR_KEY
    jwt: JwtPolicy | None = field(default_factory=JwtPolicy)
    max_message_bytes: int = MAX_MESSAGE_BYTES


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running emulator is reached.

    `connection_string` serves ServiceBusClient; `admin_connection_string` names the admin port,
    for ServiceBusAdministrationClient and KEDA.
    """

    amqp_port: int
    admin_port: int
    connection_string: str
    admin_connection_string: str


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator in this process."""

    broker: Broker
    endpoints: Endpoints


def check_host(options: Options) -> None:
    """Raises ConfigError for a host off the loopback without `expose`."""
    try:
        loopback = options.host == "localhost" or ip_address(options.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not options.expose:
        raise ConfigError(f"host {options.host!r} is not the loopback; say --expose if you mean it")


def _tls(options: Options) -> ssl.SSLContext | None:
    if (options.admin_tls_cert is None) != (options.admin_tls_key is None):
        raise ConfigError("the admin port's TLS needs both a certificate and a key")
    if options.admin_tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.admin_tls_cert, options.admin_tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the admin port's certificate or key cannot be read: {error}") from error
    return context


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # its connections inherit it
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"port {port} on {host}: {error.strerror}") from error
    listener.listen(256)
    listener.setblocking(False)
    return listener


def _endpoints(options: Options, amqp_port: int, admin_port: int) -> Endpoints:
    def text(port: int) -> str:
        host = f"[{options.host}]" if ":" in options.host else options.host
        return (
            f"Endpoint=sb://{host}:{port};SharedAccessKeyName={options.key_name};"
            f"SharedAccessKey={options.key};UseDevelopmentEmulator=true;"
        )

    return Endpoints(amqp_port, admin_port, text(amqp_port), text(admin_port))


@asynccontextmanager
async def serving(
    options: Options = Options(),
    *,
    clock_ms: Callable[[], int] = now_ms,
    on_failure: Callable[[Exception], None] | None = None,
) -> AsyncIterator[Emulator]:
    """Runs an emulator in this event loop for the length of the block.

    With a clock of its own a test moves time and calls `emulator.broker.tick()`. Raises
    ConfigError for options that cannot be, StoreError for a database that cannot.
    """
    check_host(options)
    tls = _tls(options)
    authority = Authority(options.key_name, options.key, options.jwt, time.time)
    async with AsyncExitStack() as stack:
        amqp_listener = _listen(options.host, options.port)
        stack.callback(amqp_listener.close)
        admin_listener = _listen(options.host, options.admin_port)
        stack.callback(admin_listener.close)
        store = SqliteStore(options.database) if options.database else MemoryStore()
        broker = Broker(
            authority,
            store,
            clock_ms,
            max_message_bytes=options.max_message_bytes,
            on_failure=on_failure,
        )
        stack.push_async_callback(broker.close)
        for name, settings in options.queues.items():
            broker.create_queue(name, settings)
        runner = web.AppRunner(AdminApi(broker).application(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, admin_listener, ssl_context=tls).start()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(broker.connect), sock=amqp_listener)
        stack.callback(server.close)
        broker.tick()
        ports = amqp_listener.getsockname()[1], admin_listener.getsockname()[1]
        yield Emulator(broker, _endpoints(options, *ports))
