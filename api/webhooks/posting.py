"""One HTTP request to a receiver: bounded in time, never redirected, its answer's body not read."""

import asyncio
import ssl
from collections.abc import Mapping

import httpcore

from api.webhooks.addresses import UrlRules
from api.webhooks.guard import AddressRefused, GuardedBackend, NameUnknown, Resolver
from darkroom.errors import InvalidInput

_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (InvalidInput, "UrlRefused"),
    (AddressRefused, "AddressRefused"),
    (NameUnknown, "NameUnknown"),
    (TimeoutError, "Timeout"),
    (httpcore.TimeoutException, "Timeout"),
    (httpcore.NetworkError, "ConnectionFailed"),
    (httpcore.ProtocolError, "ProtocolError"),
    (ssl.SSLError, "ConnectionFailed"),
    (OSError, "ConnectionFailed"),
)


class DeliveryFailed(Exception):
    """There was no answer. ``code`` is one of a few words, fit for a metric's label."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Poster:
    """Sends requests. Each makes a connection of its own, so each looks its host up anew."""

    def __init__(
        self,
        rules: UrlRules,
        resolve: Resolver,
        timeout_seconds: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._timeout_seconds = timeout_seconds
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or ssl.create_default_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=GuardedBackend(rules, resolve),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Return the status of the answer. Raises `DeliveryFailed`."""
        try:
            self._rules.check(url)  # the deployment's rules may have changed since the job came
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(url, headers, body)
        except tuple(kind for kind, _ in _FAULTS) as error:
            code = next(code for kind, code in _FAULTS if isinstance(error, kind))
            raise DeliveryFailed(code) from None

    async def close(self) -> None:
        """Close what is open."""
        await self._pool.aclose()

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        sent = list(headers.items())
        async with self._pool.stream("POST", url, headers=sent, content=body) as response:
            return int(response.status)
