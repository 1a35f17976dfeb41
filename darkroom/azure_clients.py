"""What the Azure adapters share: retry policies, credentials, and errors without vendors' words.

Retries
    Throttling and outages are backed off by the SDKs' own policies, with these numbers.
    `SERVICE_BUS_RETRIES`: 4 retries after 0.4, 0.8, 1.6 and 3.2 s; below that, on its link, the SDK
    waits 4 s after ``server-busy``. Opening a link or a management request has 20 s per try.
    `HTTP_RETRIES` (tables, and the admin plane of Service Bus): 5 retries of 408, 429, 5xx and
    broken connections, at once, then after 0.4, 0.8, 1.6, 3.2 s, or when ``Retry-After`` says.
    `BLOB_RETRIES`: 4 retries after about 2, 4, 8 and 16 s, each give or take 1 s: blobs are what a
    worker has at its end, hours of GPU time behind it, so they are tried for longest.
    HTTP connections must open in 5 s and answer in 20 s.
Credentials
    `DefaultAzureCredential` (Workload ID in the cluster). Connection strings hold keys and are
    refused unless every endpoint in them is on this machine.
Errors
    `queue_errors` and `store_errors` translate; what a vendor said is dropped, since it can hold
    URLs with signatures. The class and the status remain.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import DefaultAzureCredential
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
)

from darkroom.errors import (
    InvalidInput,
    LeaseLost,
    QueueUnavailable,
    SettingsError,
    StoreUnavailable,
)

SERVICE_BUS_RETRIES: Mapping[str, Any] = MappingProxyType(
    {
        "retry_total": 4,
        "retry_mode": "exponential",
        "retry_backoff_factor": 0.2,
        "retry_backoff_max": 10,
        "try_timeout": 20,
    }
)
HTTP_RETRIES: Mapping[str, Any] = MappingProxyType(
    {
        "retry_total": 5,
        "retry_connect": 5,
        "retry_read": 5,
        "retry_status": 5,
        "retry_backoff_factor": 0.2,
        "retry_backoff_max": 10,
        "connection_timeout": 5,
        "read_timeout": 20,
    }
)
BLOB_RETRIES: Mapping[str, Any] = MappingProxyType(
    {
        "retry_total": 4,
        "initial_backoff": 0,
        "increment_base": 2,
        "random_jitter_range": 1,
        "connection_timeout": 5,
        "read_timeout": 20,
    }
)
EMULATOR_ADMIN_PORT = 5300


@contextmanager
def queue_errors(doing: str) -> Iterator[None]:
    """Translate what Service Bus raises while ``doing`` (a gerund phrase)."""
    try:
        yield
    except (MessageLockLostError, MessageAlreadySettled, MessageNotFoundError) as error:
        raise LeaseLost(f"{doing}: the lease is over ({type(error).__name__})") from None
    except MessageSizeExceededError:
        raise InvalidInput(f"{doing}: the message is over the queue's size limit") from None
    except (AzureError, OSError) as error:  # OSError is also what a timeout is
        raise QueueUnavailable(f"{doing}: {_what(error)}") from None


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Translate what tables and blobs raise while ``doing`` (a gerund phrase)."""
    try:
        yield
    except (AzureError, OSError) as error:
        raise StoreUnavailable(f"{doing}: {_what(error)}") from None


@contextmanager
def unless_it_is_there() -> Iterator[None]:
    """Let a table or container that exists be; a role on it alone does not allow to create it."""
    try:
        yield
    except HttpResponseError as error:
        if error.status_code not in {403, 409}:
            raise


def _what(error: BaseException) -> str:
    status = error.status_code if isinstance(error, HttpResponseError) else None
    return type(error).__name__ if status is None else f"{type(error).__name__}, status {status}"


def default_credential(**options: Any) -> DefaultAzureCredential:
    """Return the identity of this process: Workload ID, managed identity, or a developer's.

    ``options`` go to `DefaultAzureCredential`; production needs none.
    """
    return DefaultAzureCredential(**options)


def service_bus(
    namespace: str, credential: AsyncTokenCredential, **options: Any
) -> tuple[ServiceBusClient, ServiceBusAdministrationClient]:
    """Return clients of a namespace (``NAME.servicebus.windows.net``) for an identity."""
    return (
        ServiceBusClient(namespace, credential, **{**SERVICE_BUS_RETRIES, **options}),
        ServiceBusAdministrationClient(namespace, credential, **HTTP_RETRIES),
    )


def emulated_service_bus(
    connection_string: str, admin_connection_string: str = "", **options: Any
) -> tuple[ServiceBusClient, ServiceBusAdministrationClient]:
    """Return clients of an emulator on this machine.

    Its admin port is another than the AMQP port and speaks plain http; without a connection string
    of its own it is taken to be `EMULATOR_ADMIN_PORT`, Microsoft's. Raises `SettingsError` for a
    connection string that points elsewhere.
    """
    parts = require_emulator("SERVICEBUS_CONNECTION_STRING", connection_string)
    if admin_connection_string:
        require_emulator("SERVICEBUS_ADMIN_CONNECTION_STRING", admin_connection_string)
    else:
        host = urlsplit(parts["endpoint"]).hostname or "localhost"
        admin_connection_string = (
            f"Endpoint=sb://{host}:{EMULATOR_ADMIN_PORT};"
            f"SharedAccessKeyName={parts.get('sharedaccesskeyname', '')};"
            f"SharedAccessKey={parts.get('sharedaccesskey', '')};UseDevelopmentEmulator=true"
        )
    return (
        ServiceBusClient.from_connection_string(
            connection_string, **{**SERVICE_BUS_RETRIES, **options}
        ),
        ServiceBusAdministrationClient.from_connection_string(
            admin_connection_string, transport=_PlainHttp(), **HTTP_RETRIES
        ),
    )


class _PlainHttp(AioHttpTransport):  # type: ignore[misc]  # the SDK exports it lazily, untyped
    """The admin client always says https, which no emulator's admin port speaks unasked."""

    async def send(self, request: Any, **options: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return await super().send(request, **options)


def require_emulator(variable: str, connection_string: str) -> dict[str, str]:
    """Return the parts of a connection string (names lower-cased) that points to this machine.

    Raises `SettingsError` for any other: against Azure, Darkroom knows identities only, no keys.
    """
    parts = {
        name.strip().lower(): value.strip()
        for name, _, value in (part.partition("=") for part in connection_string.split(";"))
        if name.strip()
    }
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        return parts
    endpoints = [value for name, value in parts.items() if name.endswith("endpoint")]
    if not endpoints or not all(_is_loopback(endpoint) for endpoint in endpoints):
        raise SettingsError(
            f"{variable}: a connection string is for emulators on this machine only;"
            " against Azure leave it out, and the process's identity is used",
            target=variable,
        )
    return parts


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
