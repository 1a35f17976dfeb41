"""Connections to addresses that were checked, and to no others.

A host's name is looked up when the delivery is sent, every address that it has must be allowed, and
the connection is made to one of those very addresses: a name that means something else a moment
later (rebinding) changes nothing. TLS still asks for a certificate of the name.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from api.webhooks.addresses import UrlRules

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class AddressRefused(Exception):
    """The host is, or also is, at an address that webhooks must not reach."""


class NameUnknown(Exception):
    """The host's name has no address."""


class SystemResolver:
    """The machine's own resolver, in threads that nothing else waits for."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return every address of ``host``. Raises `NameUnknown`."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError):
            raise NameUnknown from None
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Let the threads go; a lookup that hangs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Looks up, checks, and connects by address."""

    def __init__(self, rules: UrlRules, resolve: Resolver) -> None:
        self._rules = rules
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raises `AddressRefused`, `NameUnknown`."""
        addresses = await self._resolve(host, port)
        if not addresses:
            raise NameUnknown
        if not all(self._rules.allows(address) for address in addresses):
            raise AddressRefused
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address)

    async def sleep(self, seconds: float) -> None:
        """Wait; the pool calls it between tries of a connection."""
        await asyncio.sleep(seconds)
