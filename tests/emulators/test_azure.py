"""Both emulators by one command."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.storage.blob.aio import BlobServiceClient

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js with npm")
async def test_one_command_gives_the_environment_for_everything(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "emulators.azure", "--free-ports",
        "--config", "emulators/Config.json", "--data", tmp_path / "data",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        variables = json.loads(await asyncio.wait_for(process.stdout.readline(), 90))
        bus = ServiceBusClient.from_connection_string(variables["SERVICEBUS_CONNECTION_STRING"])
        async with bus, bus.get_queue_sender("local") as sender:
            await sender.send_messages(ServiceBusMessage("a"))
        storage = BlobServiceClient.from_connection_string(
            variables["AZURE_STORAGE_CONNECTION_STRING"]
        )
        async with storage:
            await storage.create_container("images")
    finally:
        process.terminate()
        code = await asyncio.wait_for(process.wait(), 15)
    assert code == 0
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"azurite", "service-bus.db"}
