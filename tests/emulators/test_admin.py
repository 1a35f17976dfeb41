"""The admin API, as the Python administration client and KEDA's Go client use it."""

import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import quote
from xml.etree import ElementTree

import aiohttp
import pytest
import pytest_asyncio
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from emulators.certificates import Certificate, self_signed
from emulators.service_bus.server import EMULATOR_KEY, KEY_NAME, Options
from emulators.tokens import local_token

from .conftest import Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECT = "{http://schemas.microsoft.com/netservices/2010/10/servicebus/connect}"
COUNTS = "{http://schemas.microsoft.com/netservices/2011/06/servicebus}"
ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(pair: Certificate) -> AsyncIterator[Bench]:
    async with bench(Options(admin_tls_cert=pair.certificate, admin_tls_key=pair.key)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def admin(bus: Bench, pair: Certificate) -> AsyncIterator[ServiceBusAdministrationClient]:
    client = ServiceBusAdministrationClient.from_connection_string(
        bus.endpoints.admin_connection_string,
        connection_verify=str(pair.certificate),
        retry_total=0,
    )
    async with client:
        yield client


async def test_a_queue_is_made_read_changed_listed_and_deleted(
    admin: ServiceBusAdministrationClient,
) -> None:
    made = await admin.create_queue(
        "fresh",
        lock_duration=timedelta(seconds=45),
        max_delivery_count=7,
        requires_duplicate_detection=True,
        duplicate_detection_history_time_window=timedelta(minutes=2),
        default_message_time_to_live=timedelta(days=3),
        dead_lettering_on_message_expiration=True,
    )
    read = await admin.get_queue("fresh")
    for seen in (made, read):
        assert seen.name == "fresh"
        assert seen.lock_duration == timedelta(seconds=45)
        assert seen.max_delivery_count == 7
        assert seen.requires_duplicate_detection
        assert seen.duplicate_detection_history_time_window == timedelta(minutes=2)
        assert seen.default_message_time_to_live == timedelta(days=3)
        assert seen.dead_lettering_on_message_expiration
    read.max_delivery_count = 9
    await admin.update_queue(read)
    assert (await admin.get_queue("fresh")).max_delivery_count == 9
    assert "fresh" in [queue.name async for queue in admin.list_queues()]
    await admin.delete_queue("fresh")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_queue("fresh")
    with pytest.raises(ResourceNotFoundError):
        await admin.delete_queue("fresh")


async def test_a_queue_made_twice_is_a_conflict(admin: ServiceBusAdministrationClient) -> None:
    await admin.create_queue("twice")
    with pytest.raises(ResourceExistsError):
        await admin.create_queue("twice")


@pytest.mark.parametrize(
    "wrong",
    [
        {"requires_session": True},
        {"forward_to": "jobs"},
        {"lock_duration": timedelta(minutes=6)},
        {"max_delivery_count": 0},
    ],
)
async def test_what_the_emulator_lacks_or_azure_forbids_is_refused(
    admin: ServiceBusAdministrationClient, wrong: dict[str, object]
) -> None:
    with pytest.raises(HttpResponseError) as caught:
        await admin.create_queue("wrong", **wrong)
    assert caught.value.status_code == 400


async def test_topics_are_refused(admin: ServiceBusAdministrationClient) -> None:
    with pytest.raises(HttpResponseError):
        await admin.create_topic("topic")
    assert [topic async for topic in admin.list_topics()] == []


async def test_counts_tell_active_with_locked_scheduled_and_dead(
    bus: Bench, admin: ServiceBusAdministrationClient
) -> None:
    bus.put("a", "b", "c")
    queue = bus.broker.queue(bus.name("jobs"))
    assert queue is not None
    assert queue.lease() is not None
    buried = queue.lease()
    assert buried is not None
    assert buried.lock_token is not None
    queue.reject(buried.lock_token, {})
    queue.send(buried.message, bus.clock() + 60_000)
    seen = await admin.get_queue_runtime_properties(bus.name("jobs"))
    assert seen.active_message_count == 2
    assert seen.scheduled_message_count == 1
    assert seen.dead_letter_message_count == 1
    assert seen.total_message_count == 4
    assert seen.size_in_bytes > 0
    listed = {q.name: q async for q in admin.list_queues_runtime_properties()}
    assert listed[bus.name("jobs")].active_message_count == 2


async def test_the_namespace_describes_itself(admin: ServiceBusAdministrationClient) -> None:
    assert (await admin.get_namespace_properties()).messaging_sku == "Standard"


async def test_a_wrong_key_is_refused(bus: Bench, pair: Certificate) -> None:
    wrong = bus.endpoints.admin_connection_string.replace(EMULATOR_KEY, "wrong")
    client = ServiceBusAdministrationClient.from_connection_string(
        wrong, connection_verify=str(pair.certificate), retry_total=0
    )
    async with client:
        with pytest.raises(ClientAuthenticationError):
            await client.get_queue("jobs")


def go_signature(url: str, key: str = EMULATOR_KEY, lifetime_seconds: int = 3600) -> str:
    """As azsbadmin for Go signs: the whole lower-cased URL, query included."""
    resource = quote(url.lower(), safe="")
    ends = str(int(time.time()) + lifetime_seconds)
    digest = hmac.digest(key.encode(), f"{resource}\n{ends}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={ends}&skn={KEY_NAME}"


async def get(bus: Bench, pair: Certificate, path: str, token: str | None) -> tuple[int, str]:
    headers = {"User-Agent": "azsdk-go-azsbadmin/v1.9.0", "Accept-Encoding": "gzip"}
    if token is not None:
        headers["Authorization"] = token
    url = f"https://127.0.0.1:{bus.endpoints.admin_port}/{path}"
    context = ssl.create_default_context(cafile=pair.certificate)
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=context) as response,
    ):
        return response.status, await response.text()


async def test_keda_reads_the_active_count_as_its_go_client_asks_for_it(
    bus: Bench, pair: Certificate
) -> None:
    queue = bus.broker.queue(bus.name("once"))
    assert queue is not None
    await bus.send(ServiceBusMessage("a"), ServiceBusMessage("b"), queue="once")
    path = f"{bus.name('once')}?api-version=2021-05"
    url = f"https://127.0.0.1:{bus.endpoints.admin_port}/{path}"
    bearer, _ = local_token("https://servicebus.azure.net")
    for token in (go_signature(url), bearer):
        status, body = await get(bus, pair, path, token)
        assert status == 200
        entry = ElementTree.fromstring(body)
        assert entry.tag == f"{ATOM}entry"
        found = entry.find(f"{ATOM}content/{CONNECT}QueueDescription")
        assert found is not None
        count = found.find(f"{CONNECT}CountDetails/{COUNTS}ActiveMessageCount")
        assert count is not None
        assert count.text == "2"
        for name in ("CreatedAt", "UpdatedAt", "AccessedAt"):
            assert found.findtext(f"{CONNECT}{name}") == "0001-01-01T00:00:00"


async def test_a_missing_queue_is_an_empty_feed_as_on_azure(bus: Bench, pair: Certificate) -> None:
    url = f"https://127.0.0.1:{bus.endpoints.admin_port}/none?api-version=2021-05"
    status, body = await get(bus, pair, "none?api-version=2021-05", go_signature(url))
    assert status == 200
    feed = ElementTree.fromstring(body)
    assert feed.findtext(f"{ATOM}title") == "Publicly Listed Services"


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "SharedAccessSignature nothing",
        go_signature("https://x/", key="wrong"),
        go_signature("https://x/", lifetime_seconds=-1),
        "not.a.token",
        "a.e30.b",
        local_token("https://storage.azure.com")[0],
        local_token("https://servicebus.azure.net", lifetime_seconds=-1)[0],
    ],
)
async def test_a_bad_token_is_refused(bus: Bench, pair: Certificate, token: str | None) -> None:
    status, body = await get(bus, pair, "jobs?api-version=2021-05", token)
    assert status == 401
    assert not token or token not in body


async def test_health_needs_no_token(bus: Bench, pair: Certificate) -> None:
    assert (await get(bus, pair, "health", None))[0] == 200


async def test_xml_with_a_document_type_is_refused(bus: Bench, pair: Certificate) -> None:
    bearer, _ = local_token("https://servicebus.azure.net")
    url = f"https://127.0.0.1:{bus.endpoints.admin_port}/bomb"
    context = ssl.create_default_context(cafile=pair.certificate)
    body = b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'
    async with aiohttp.ClientSession(headers={"Authorization": bearer}) as session:
        for data in (body, b"no xml", b"<x/>"):
            async with session.put(url, data=data, ssl=context) as response:
                assert response.status == 400
