"""The sender as the process that `darkroom up` and a cluster start."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from darkroom.catalog import load_catalog
from darkroom.clock import SystemClock
from darkroom.jobs import Job, request_cancel
from darkroom.settings import DarkroomSettings, load
from darkroom.webhooks import Webhook
from darkroom.wiring import Backends, open_backends
from emulators.azurite import ACCOUNT
from emulators.service_bus.config import load_config
from emulators.service_bus.server import Options, serving
from tests.azure.emulated import Azurite, azurite, fresh_name
from tests.samples import make_job
from tests.webhooks.receiver import SECRET, receiving, until, write_secrets

__all__ = ["azurite"]  # a fixture

EMULATED_QUEUES = Path(__file__).parents[2] / "emulators" / "Config.json"


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[dict[str, str]]:
    yield {
        "DARKROOM_QUEUE_URL": f"sqlite:///{folder}/queue.db",
        "DARKROOM_JOBSTORE_URL": f"sqlite:///{folder}/jobs.db",
        "DARKROOM_IMAGESTORE_URL": f"file:///{folder}/images",
    }


@asynccontextmanager
async def emulated(storage: Azurite) -> AsyncIterator[dict[str, str]]:
    """Azure's adapters, on a broker of this test's and the session's Azurite."""
    async with serving(Options(queues=load_config(EMULATED_QUEUES))) as bus:
        yield {
            "DARKROOM_QUEUE_URL": "servicebus://localhost",
            "DARKROOM_JOBSTORE_URL": f"aztables://{ACCOUNT}",
            "DARKROOM_IMAGESTORE_URL": f"azblob://{ACCOUNT}/{fresh_name('hooks')}",
            "SERVICEBUS_CONNECTION_STRING": bus.endpoints.connection_string,
            "SERVICEBUS_ADMIN_CONNECTION_STRING": bus.endpoints.admin_connection_string,
            "AZURE_STORAGE_CONNECTION_STRING": storage.endpoints.connection_string,
        }


def environment(folder: Path, places: Mapping[str, str], **more: str) -> dict[str, str]:
    write_secrets(folder / "secrets.yaml", {"acme": [SECRET]})
    return {
        **places,
        "DARKROOM_API_WEBHOOK_SECRETS_FILE": str(folder / "secrets.yaml"),
        "DARKROOM_API_WEBHOOK_ALLOW_LOOPBACK": "true",
        "DARKROOM_API_WEBHOOK_POLL_SECONDS": "0.2",
        **more,
    }


async def start(variables: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "webhooks", env=variables, stderr=asyncio.subprocess.PIPE
    )


async def line(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        async for text in process.stderr:
            said: dict[str, Any] = json.loads(text)
            if said["event"] == event:
                return said
    raise AssertionError(f"it ended without saying {event}")


@asynccontextmanager
async def backends(
    places: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backends]:
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    settings = load(DarkroomSettings)
    opened = open_backends(settings, load_catalog(settings.catalog))
    try:
        yield opened
    finally:
        await opened.close()


async def ended(opened: Backends, url: str) -> Job:
    now = SystemClock().now()
    job = (await opened.jobs.create(make_job(webhook=Webhook(url=url), created_at=now))).job
    return await opened.jobs.compare_and_set(request_cancel(job, now), job.version)


@pytest.mark.parametrize("where", ["embedded", "azure"])
async def test_a_sender_delivers_what_other_processes_end_and_stops_in_order(
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    is_azure = where == "azure"
    on = emulated(request.getfixturevalue("azurite")) if is_azure else embedded(tmp_path)
    async with on as places, receiving() as receiver, backends(places, monkeypatch) as opened:
        first = await ended(opened, receiver.url)
        sender = await start(environment(tmp_path, places))
        try:
            await line(sender, "ready")
            second = await ended(opened, receiver.url)
            await until(lambda: len(receiver.requests) == 2)
            assert {id.split(".")[0] for id in receiver.ids} == {first.id, second.id}
            said = await line(sender, "webhook_attempt")
            assert said["outcome"] == "Delivered"
            assert receiver.url not in json.dumps(said)
            sender.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(sender.wait(), 30) == 0
        finally:
            if sender.returncode is None:
                sender.kill()


async def test_a_sender_that_could_not_sign_refuses_to_start(tmp_path: Path) -> None:
    async with embedded(tmp_path) as places:
        variables = environment(tmp_path, places)
    del variables["DARKROOM_API_WEBHOOK_SECRETS_FILE"]
    sender = await start(variables)
    said = await line(sender, "settings_refused")
    assert "DARKROOM_API_WEBHOOK_SECRETS_FILE" in said["reason"]
    assert await sender.wait() == 2


async def test_a_lease_that_ends_before_an_attempt_could_is_refused(tmp_path: Path) -> None:
    short = {"DARKROOM_LEASE_SECONDS": "25", "DARKROOM_RENEW_SECONDS": "8"}
    async with embedded(tmp_path) as places:
        sender = await start(environment(tmp_path, places, **short))
    said = await line(sender, "settings_refused")
    assert "DARKROOM_API_WEBHOOK_TIMEOUT_SECONDS" in said["reason"]
    assert await sender.wait() == 2
