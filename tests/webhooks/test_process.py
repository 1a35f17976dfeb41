"""The sender as the process that `darkroom up` and a cluster start."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from darkroom.catalog import load_catalog
from darkroom.clock import SystemClock
from darkroom.jobs import Job, request_cancel
from darkroom.settings import DarkroomSettings
from darkroom.webhooks import Webhook
from darkroom.wiring import Backends, open_backends
from tests.samples import make_job
from tests.webhooks.receiver import SECRET, receiving, until, write_secrets


def environment(folder: Path, **more: str) -> dict[str, str]:
    write_secrets(folder / "secrets.yaml", {"acme": [SECRET]})
    return {
        "DARKROOM_QUEUE_URL": f"sqlite:///{folder}/queue.db",
        "DARKROOM_JOBSTORE_URL": f"sqlite:///{folder}/jobs.db",
        "DARKROOM_IMAGESTORE_URL": f"file:///{folder}/images",
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
async def backends(folder: Path) -> AsyncIterator[Backends]:
    settings = DarkroomSettings.model_validate(
        {
            "queue_url": f"sqlite:///{folder}/queue.db",
            "jobstore_url": f"sqlite:///{folder}/jobs.db",
            "imagestore_url": f"file:///{folder}/images",
        }
    )
    opened = open_backends(settings, load_catalog(settings.catalog))
    try:
        yield opened
    finally:
        await opened.close()


async def ended(opened: Backends, url: str) -> Job:
    now = SystemClock().now()
    job = (await opened.jobs.create(make_job(webhook=Webhook(url=url), created_at=now))).job
    return await opened.jobs.compare_and_set(request_cancel(job, now), job.version)


async def test_a_sender_delivers_what_other_processes_end_and_stops_in_order(
    tmp_path: Path,
) -> None:
    async with receiving() as receiver, backends(tmp_path) as opened:
        first = await ended(opened, receiver.url)
        sender = await start(environment(tmp_path))
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
    variables = environment(tmp_path)
    del variables["DARKROOM_API_WEBHOOK_SECRETS_FILE"]
    sender = await start(variables)
    said = await line(sender, "settings_refused")
    assert "DARKROOM_API_WEBHOOK_SECRETS_FILE" in said["reason"]
    assert await sender.wait() == 2


async def test_a_lease_that_ends_before_an_attempt_could_is_refused(tmp_path: Path) -> None:
    short = {"DARKROOM_LEASE_SECONDS": "25", "DARKROOM_RENEW_SECONDS": "8"}
    sender = await start(environment(tmp_path, **short))
    said = await line(sender, "settings_refused")
    assert "DARKROOM_API_WEBHOOK_TIMEOUT_SECONDS" in said["reason"]
    assert await sender.wait() == 2
