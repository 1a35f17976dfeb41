"""Azurite from npm, with the storage SDKs on it."""

import asyncio
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob import BlobSasPermissions, generate_blob_sas
from azure.storage.blob.aio import BlobClient, BlobServiceClient

from emulators.azurite import OAUTH, running, tools_folder
from emulators.tokens import LocalCredential

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


@pytest.mark.skipif(
    not (tools_folder() / OAUTH.folder / "node").exists(),
    reason="half a gigabyte: python -m emulators.azurite --oauth --install-only",
)
async def test_a_link_signed_by_an_identity_reads_its_blob_and_no_other() -> None:
    async with running(oauth=True) as azurite:
        trust = {"connection_verify": azurite.certificate}
        account = BlobServiceClient(azurite.blob_url, LocalCredential(), **trust)
        now = datetime.now(UTC)
        async with account:
            container = await account.create_container("images")
            await container.upload_blob("mine", b"png")
            await container.upload_blob("other", b"png")
            key = await account.get_user_delegation_key(
                now - timedelta(minutes=1), now + timedelta(minutes=5)
            )
        link = generate_blob_sas(
            "devstoreaccount1",
            "images",
            "mine",
            user_delegation_key=key,
            permission=BlobSasPermissions(read=True),
            expiry=now + timedelta(minutes=1),
        )
        address = f"{azurite.blob_url}/images"
        async with BlobClient.from_blob_url(f"{address}/mine?{link}", **trust) as mine:
            assert await (await mine.download_blob()).readall() == b"png"
        async with BlobClient.from_blob_url(f"{address}/other?{link}", **trust) as other:
            with pytest.raises(HttpResponseError) as refused:
                await other.download_blob()
            assert refused.value.status_code == 403
