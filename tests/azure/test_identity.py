"""The keyless path, exercised: a federated token file, an authority, Service Bus, tables, blobs.

The authority is a loopback https server that does what Entra's token endpoint does for Workload ID:
it takes the pod's token as a client assertion and returns an access token for the scope. The
emulators check audience, issuer and times of that token as Azure would.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from darkroom.azure_clients import default_credential, emulated_service_bus, service_bus
from darkroom.errors import QueueUnavailable
from darkroom.imagestores.azure_blobs import AzureBlobsImageStore
from darkroom.jobstores.azure_tables import AzureTablesJobStore
from darkroom.queues.service_bus import ServiceBusJobQueue
from emulators.azurite import AzuriteEndpoints
from emulators.certificates import Certificate, self_signed
from emulators.tokens import TENANT, local_token
from tests.azure.emulated import CLOSE_QUICKLY, Bus, fresh_name, running_bus
from tests.samples import PNG, make_job, make_message

POD_TOKEN = "the.pods.token"
CLIENT_ID = "11111111-2222-3333-4444-555555555555"


class Authority:
    """Entra's token endpoint, as far as Workload ID needs it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []

    async def token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(form)
        if form.get("client_assertion") != POD_TOKEN or form.get("client_id") != CLIENT_ID:
            return web.json_response({"error": "invalid_client"}, status=401)
        audience = form["scope"].split()[0].removesuffix("/.default").rstrip("/")
        token, _ = local_token(audience)
        return web.json_response(
            {"token_type": "Bearer", "expires_in": 3600, "access_token": token}
        )

    @property
    def scopes(self) -> set[str]:
        return {form["scope"].split()[0] for form in self.asked}


@asynccontextmanager
async def serving(authority: Authority, certificate: Certificate) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post(f"/{TENANT}/oauth2/v2.0/token", authority.token)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    yield f"https://localhost:{port}"
    await runner.cleanup()


@pytest.fixture
async def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """What the cluster's webhook gives a pod, and a credential that was made from it alone."""
    certificate, authority = self_signed(tmp_path), Authority()
    token_file = tmp_path / "azure-identity-token"
    token_file.write_text(POD_TOKEN)
    async with serving(authority, certificate) as address:
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT_ID)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token_file))
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", address)
        credential = default_credential(
            connection_verify=str(certificate.certificate),
            disable_instance_discovery=True,  # which asks the real authority about ours
        )
        yield authority, credential, token_file
        await credential.close()


def keyless_queue(bus: Bus, credential: Any) -> ServiceBusJobQueue:
    assert bus.emulator is not None
    endpoints = bus.emulator.endpoints
    client, _ = service_bus(
        f"127.0.0.1:{endpoints.amqp_port}", credential, use_tls=False, **CLOSE_QUICKLY
    )
    _, admin = emulated_service_bus(endpoints.connection_string, endpoints.admin_connection_string)
    return ServiceBusJobQueue(client, admin, "short", max_delivery_count=3)


async def test_messages_travel_by_workload_identity(workload: Any) -> None:
    authority, credential, _ = workload
    async with running_bus() as bus:
        queue = keyless_queue(bus, credential)
        await queue.send(make_message())
        (lease,) = await queue.lease(1, 5)
        await lease.renew()
        await lease.complete()
        await queue.close()
    assert authority.scopes == {"https://servicebus.azure.net//.default"}
    assert all(form["grant_type"] == "client_credentials" for form in authority.asked)


async def test_a_pod_whose_token_is_not_believed_gets_nothing(workload: Any) -> None:
    authority, credential, token_file = workload
    token_file.write_text("somebody.elses.token")
    async with running_bus() as bus:
        queue = keyless_queue(bus, credential)
        with pytest.raises(QueueUnavailable) as refused:
            await queue.send(make_message())
        assert "somebody" not in str(refused.value)
        assert authority.asked, "the authority was asked, and refused"
        await queue.close()


async def test_records_and_pictures_are_kept_by_workload_identity(
    workload: Any, entra_azurite: AzuriteEndpoints
) -> None:
    authority, credential, _ = workload
    trusted = {"connection_verify": entra_azurite.certificate}
    jobs = AzureTablesJobStore(
        TableServiceClient(endpoint=entra_azurite.table_url, credential=credential, **trusted),
        table=fresh_name("jobs"),
    )
    images = AzureBlobsImageStore(
        BlobServiceClient(entra_azurite.blob_url, credential=credential, **trusted),
        fresh_name("images"),
    )
    job = (await jobs.create(make_job())).job
    assert await jobs.get(job.id) == job
    await images.put(job.id, "0.png", PNG)
    link = await images.link(job.id, "0.png", timedelta(minutes=5))
    assert link is not None
    tls = ssl.create_default_context(cafile=entra_azurite.certificate)
    async with ClientSession() as session, session.get(link, ssl=tls) as answer:
        assert await answer.read() == PNG
    await asyncio.gather(jobs.close(), images.close())
    assert authority.scopes == {"https://storage.azure.com/.default"}
