"""From settings to the Azure adapters; imported when an Azure URL is opened.

Against Azure the process's identity is used. Where the variables of `AzureEmulatorSettings` are
set, the URL's account or namespace is that of an emulator on this machine.
"""

from collections.abc import Sequence
from typing import Any

from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from darkroom.azure_clients import (
    BLOB_RETRIES,
    HTTP_RETRIES,
    default_credential,
    emulated_service_bus,
    require_emulator,
    service_bus,
)
from darkroom.clock import Clock
from darkroom.imagestores.azure_blobs import AzureBlobsImageStore
from darkroom.jobstores.azure_tables import AzureTablesJobStore
from darkroom.queues.base import JobQueue
from darkroom.queues.service_bus import ServiceBusJobQueue
from darkroom.settings import AzureEmulatorSettings, DarkroomSettings, load

STORAGE_VARIABLE = "AZURE_STORAGE_CONNECTION_STRING"
Resource = Any  # what has an awaitable ``close``: the credential that adapters share


def open_queues(
    namespace: str, names: Sequence[str], settings: DarkroomSettings, clock: Clock
) -> tuple[dict[str, JobQueue], list[Resource]]:
    """Return a queue per name, and what to close after them. The lock time is the queue's own."""
    emulated = load(AzureEmulatorSettings)
    credential = None if emulated.servicebus else default_credential()
    queues: dict[str, JobQueue] = {}
    for name in names:
        if credential is None:
            client, admin = emulated_service_bus(
                emulated.servicebus.get_secret_value(),
                emulated.servicebus_admin.get_secret_value(),
            )
        else:
            client, admin = service_bus(namespace, credential)
        queues[name] = ServiceBusJobQueue(
            client,
            admin,
            name,
            max_delivery_count=settings.delivery_limit(name),
            lease_seconds=settings.lease_seconds,
            clock=clock,
        )
    return queues, [] if credential is None else [credential]


def open_jobs(account: str, clock: Clock) -> tuple[AzureTablesJobStore, list[Resource]]:
    """Return the job store of a storage account, and what to close after it."""
    emulated = load(AzureEmulatorSettings).storage.get_secret_value()
    if emulated:
        require_emulator(STORAGE_VARIABLE, emulated)
        service = TableServiceClient.from_connection_string(emulated, **HTTP_RETRIES)
        return AzureTablesJobStore(service, clock), []
    credential = default_credential()
    service = TableServiceClient(
        endpoint=_endpoint(account, "table"), credential=credential, **HTTP_RETRIES
    )
    return AzureTablesJobStore(service, clock), [credential]


def open_images(
    account: str, container: str, clock: Clock
) -> tuple[AzureBlobsImageStore, list[Resource]]:
    """Return the image store of a container, and what to close after it."""
    emulated = load(AzureEmulatorSettings).storage.get_secret_value()
    if emulated:
        key = require_emulator(STORAGE_VARIABLE, emulated).get("accountkey")
        service = BlobServiceClient.from_connection_string(emulated, **BLOB_RETRIES)
        return AzureBlobsImageStore(service, container, account_key=key, clock=clock), []
    credential = default_credential()
    service = BlobServiceClient(_endpoint(account, "blob"), credential, **BLOB_RETRIES)
    return AzureBlobsImageStore(service, container, clock=clock), [credential]


def _endpoint(account: str, service: str) -> str:
    """Return the address of an account; one with a dot is a host already (other clouds)."""
    host = account if "." in account else f"{account}.{service}.core.windows.net"
    return f"https://{host}"
