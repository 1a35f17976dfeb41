"""What is special about pictures in blobs: links that only read, for a while, and their keys."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ssl import SSLContext, create_default_context
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from azure.storage.blob.aio import BlobServiceClient

from darkroom.azure_clients import BLOB_RETRIES
from darkroom.clock import FakeClock
from darkroom.errors import InvalidInput
from darkroom.imagestores.azure_blobs import (
    KEY_LIFETIME,
    MAX_LINK_LIFETIME,
    AzureBlobsImageStore,
)
from darkroom.jobs import new_job_id
from emulators.azurite import ACCOUNT_KEY, AzuriteEndpoints
from emulators.tokens import LocalCredential
from tests.azure.emulated import Azurite, fresh_name
from tests.samples import PNG

LIFETIME = timedelta(minutes=5)


@pytest.fixture
def job_id() -> str:
    return new_job_id("local", "acme")


@pytest.fixture
async def store(azurite: Azurite) -> AsyncIterator[AzureBlobsImageStore]:
    opened = azurite.image_store(fresh_name("images"))
    yield opened
    await opened.close()


async def status(method: str, url: str | None, tls: SSLContext | None = None) -> tuple[int, bytes]:
    assert url is not None
    headers = {"x-ms-blob-type": "BlockBlob"} if method == "PUT" else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers, ssl=tls or True) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_link_reads_one_picture_and_nothing_else(
    store: AzureBlobsImageStore, job_id: str
) -> None:
    await store.put(job_id, "0.png", PNG)
    await store.put(job_id, "1.png", PNG + b"1")
    link = await store.link(job_id, "0.png", LIFETIME)
    assert link is not None
    assert await status("GET", link) == (200, PNG)
    assert (await status("GET", link.replace("/0.png?", "/1.png?")))[0] == 403
    assert (await status("GET", link.split("?")[0]))[0] in {403, 404, 409}  # not public
    for method in ("PUT", "DELETE"):
        assert (await status(method, link))[0] == 403
    assert await store.get(job_id, "0.png") == PNG


async def test_a_link_ends(azurite: Azurite, job_id: str) -> None:
    past = FakeClock(datetime.now(UTC) - LIFETIME - timedelta(seconds=5))
    name = fresh_name("images")
    store = AzureBlobsImageStore(azurite.blobs(), name, account_key=ACCOUNT_KEY, clock=past)
    await store.put(job_id, "0.png", PNG)
    assert (await status("GET", await store.link(job_id, "0.png", LIFETIME)))[0] == 403
    past.advance(60)
    assert (await status("GET", await store.link(job_id, "0.png", LIFETIME)))[0] == 200
    await store.close()


@pytest.mark.parametrize("lifetime", [timedelta(0), MAX_LINK_LIFETIME + timedelta(seconds=1)])
async def test_a_link_for_too_long_is_refused(
    store: AzureBlobsImageStore, job_id: str, lifetime: timedelta
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await store.link(job_id, "0.png", lifetime)
    assert refused.value.target == "lifetime"


async def test_a_picture_is_served_as_a_png_and_not_shared(
    store: AzureBlobsImageStore, job_id: str
) -> None:
    await store.put(job_id, "0.png", PNG)
    link = await store.link(job_id, "0.png", LIFETIME)
    assert link is not None
    async with aiohttp.ClientSession() as session, session.get(link) as answer:
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Cache-Control"].startswith("private")


class CountingClient(BlobServiceClient):
    """Counts how often a user-delegation key is asked for."""

    asked = 0

    async def get_user_delegation_key(self, *times: datetime, **options: object):  # type: ignore[no-untyped-def,override]
        self.asked += 1
        return await super().get_user_delegation_key(*times, **options)


async def test_links_are_signed_by_an_identity_with_a_key_that_is_kept(
    entra_azurite: AzuriteEndpoints, job_id: str
) -> None:
    client = CountingClient(
        entra_azurite.blob_url,
        credential=LocalCredential(),
        connection_verify=entra_azurite.certificate,
        **BLOB_RETRIES,
    )
    clock = FakeClock(datetime.now(UTC))
    store = AzureBlobsImageStore(client, fresh_name("images"), clock=clock)
    tls = create_default_context(cafile=entra_azurite.certificate)
    await store.put(job_id, "0.png", PNG)
    link = await store.link(job_id, "0.png", LIFETIME)
    assert link is not None
    signature = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    assert (signature["sp"], signature["spr"], signature["sr"]) == ("r", "https", "b")
    assert {"skoid", "sktid", "skt", "ske"} <= signature.keys(), "no account key signed it"
    assert await status("GET", link, tls) == (200, PNG)
    assert (await status("DELETE", link, tls))[0] == 403
    clock.advance((KEY_LIFETIME - MAX_LINK_LIFETIME).total_seconds() - 600)
    await store.link(job_id, "0.png", MAX_LINK_LIFETIME)
    assert client.asked == 1
    clock.advance(900)  # now the key would end before the link does
    await store.link(job_id, "0.png", MAX_LINK_LIFETIME)
    assert client.asked == 2
    await store.close()
