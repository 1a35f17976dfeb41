"""Azure on this machine: a broker per test with a clock to move, one Azurite per session."""

import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from darkroom.azure_clients import BLOB_RETRIES, HTTP_RETRIES, emulated_service_bus
from darkroom.clock import FakeClock
from darkroom.imagestores.azure_blobs import AzureBlobsImageStore
from darkroom.jobstores.azure_tables import AzureTablesJobStore
from darkroom.queues.service_bus import ServiceBusJobQueue
from emulators.azurite import ACCOUNT_KEY, AzuriteEndpoints
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.server import Emulator, Options, now_ms, serving

LEASE_SECONDS = 30.0
MAX_DELIVERY_COUNT = 3
CLOSE_QUICKLY = {"socket_timeout": 0.05}  # what the SDK waits for silence when it closes a link


class Bus:
    """A broker in this event loop, whose clock a test can set forward. Also a `Clock`."""

    def __init__(self) -> None:
        self.ahead_ms = 0
        self.emulator: Emulator | None = None

    def now_ms(self) -> int:
        return now_ms() + self.ahead_ms

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms() / 1000, UTC)

    async def advance(self, seconds: float) -> None:
        assert self.emulator is not None
        self.ahead_ms += int(seconds * 1000)
        self.emulator.broker.tick()

    def open_queue(
        self, name: str = "short", lease_seconds: float | None = None, **options: Any
    ) -> ServiceBusJobQueue:
        """Return one more client of a queue; close it, or its links outlive the test."""
        assert self.emulator is not None
        endpoints = self.emulator.endpoints
        client, admin = emulated_service_bus(
            endpoints.connection_string,
            endpoints.admin_connection_string,
            **{**CLOSE_QUICKLY, **options},
        )
        return ServiceBusJobQueue(
            client,
            admin,
            name,
            max_delivery_count=MAX_DELIVERY_COUNT,
            lease_seconds=lease_seconds,
            clock=self,
        )


@asynccontextmanager
async def running_bus(**settings: Any) -> AsyncIterator[Bus]:
    """Run a broker with the queues `short` and, with duplicate detection, `once`."""
    usual: dict[str, Any] = {
        "max_delivery_count": MAX_DELIVERY_COUNT,
        "lock_duration_ms": int(LEASE_SECONDS * 1000),
        **settings,
    }
    bus = Bus()
    queues = {
        "short": QueueSettings(**usual),
        "once": QueueSettings(**usual, requires_duplicate_detection=True),
    }
    async with serving(Options(queues=queues), clock_ms=bus.now_ms) as bus.emulator:
        yield bus


@dataclass(frozen=True)
class Azurite:
    """One Azurite process. Tests keep apart by accounts of their own making: names."""

    endpoints: AzuriteEndpoints

    def blobs(self, **options: Any) -> BlobServiceClient:
        return BlobServiceClient.from_connection_string(
            self.endpoints.connection_string, **{**BLOB_RETRIES, **options}
        )

    def tables(self, **options: Any) -> TableServiceClient:
        return TableServiceClient.from_connection_string(
            self.endpoints.connection_string, **{**HTTP_RETRIES, **options}
        )

    def image_store(self, container: str, **options: Any) -> AzureBlobsImageStore:
        return AzureBlobsImageStore(self.blobs(**options), container, account_key=ACCOUNT_KEY)

    def job_store(self, table: str, clock: FakeClock, **options: Any) -> AzureTablesJobStore:
        return AzureTablesJobStore(self.tables(**options), clock, table=table)


def fresh_name(prefix: str) -> str:
    """Return a name that no other test uses; letters and digits, as tables want it."""
    return f"{prefix}{uuid.uuid4().hex[:16]}"


def _azurite_process(*arguments: str) -> Iterator[AzuriteEndpoints]:
    command = [sys.executable, "-m", "emulators.azurite", "--blob-port", "0", "--table-port", "0"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail("Azurite could not be started; its own message is above")
        try:
            yield AzuriteEndpoints(**json.loads(line))
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """One Azurite for the session; needs Node.js with npm, and fails without."""
    for endpoints in _azurite_process():
        yield Azurite(endpoints)


@pytest.fixture(scope="session")
def entra_azurite() -> Iterator[AzuriteEndpoints]:
    """One that speaks https and believes Entra tokens."""
    yield from _azurite_process("--oauth")
