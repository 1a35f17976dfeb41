"""Azurite from npm, with the storage SDKs on it."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceExistsError
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from emulators.azurite import running

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js with npm")


async def test_blobs_and_tables_work_through_the_sdks_and_nothing_stays_behind() -> None:
    async with running() as azurite:
        blobs = BlobServiceClient.from_connection_string(azurite.connection_string)
        async with blobs:
            container = await blobs.create_container("images")
            await container.upload_blob("one", b"png")
            with pytest.raises(ResourceExistsError):
                await container.upload_blob("one", b"other")
        tables = TableServiceClient.from_connection_string(azurite.connection_string)
        async with tables:
            jobs = await tables.create_table("jobs")
            await jobs.create_entity({"PartitionKey": "a", "RowKey": "b", "state": "Running"})
            assert (await jobs.get_entity("a", "b"))["state"] == "Running"
        port = azurite.blob_port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_even_a_killed_starter_takes_azurite_with_it() -> None:
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "emulators.azurite", "--blob-port", "0", "--table-port", "0",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert starter.stdout is not None
    ready = json.loads(await asyncio.wait_for(starter.stdout.readline(), 90))
    assert {"blob_port", "table_port", "connection_string"} <= set(ready)
    starter.kill()
    await starter.wait()
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", ready["blob_port"])
            except ConnectionRefusedError:
                break
            writer.close()
            await asyncio.sleep(0.05)
