"""The Azure URLs open adapters that work: on emulators with their variables, else by identity."""

import pytest

from darkroom.catalog import Catalog
from darkroom.errors import SettingsError
from darkroom.settings import DarkroomSettings
from darkroom.wiring import Backends, open_backends
from tests.azure.emulated import Azurite, running_bus
from tests.samples import PNG, make_job, make_message

MODEL = {
    "name": "demo",
    "source": "demo",
    "revision": "1",
    "seconds_per_megapixel_step": 0.1,
    "licence": "MIT",
}
CATALOG = Catalog.model_validate(
    {
        "default_model": "demo",
        "models": [MODEL],
        "pools": [{"name": "short", "models": ["demo"], "max_gpu_seconds": 100}],
    }
)
AZURE = {
    "queue_url": "servicebus://acme.servicebus.windows.net",
    "jobstore_url": "aztables://acme",
    "imagestore_url": "azblob://acme/pictures",
}
EMBEDDED = dict.fromkeys(AZURE, "memory://")


def open_with(**urls: str) -> Backends:
    return open_backends(DarkroomSettings.model_validate({**EMBEDDED, **urls}), CATALOG)


async def test_a_queue_is_opened_on_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_bus() as bus:
        assert bus.emulator is not None
        endpoints = bus.emulator.endpoints
        monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", endpoints.connection_string)
        monkeypatch.setenv("SERVICEBUS_ADMIN_CONNECTION_STRING", endpoints.admin_connection_string)
        backends = open_with(queue_url=AZURE["queue_url"])
        queue = backends.queues["short"]
        await queue.send(make_message())
        (lease,) = await queue.lease(1, 5)
        await lease.complete()
        assert (await queue.depth()).active == 0
        await backends.close()


async def test_stores_are_opened_on_an_emulator(
    monkeypatch: pytest.MonkeyPatch, azurite: Azurite
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.endpoints.connection_string)
    backends = open_with(jobstore_url=AZURE["jobstore_url"], imagestore_url=AZURE["imagestore_url"])
    job = (await backends.jobs.create(make_job())).job
    assert await backends.jobs.get(job.id) == job
    await backends.images.put(job.id, "0.png", PNG)
    assert await backends.images.get(job.id, "0.png") == PNG
    await backends.close()


def test_everything_can_be_opened_before_a_loop_runs() -> None:
    """As both tiers do: wiring comes first, and says what is wrong before anything starts."""
    backends = open_with(**AZURE)
    assert len(backends.shared) == 3, "each family has the process's identity"


async def test_the_identities_are_closed_too() -> None:
    backends = open_with(**AZURE)
    await backends.close()


@pytest.mark.parametrize(
    ("variable", "field", "text"),
    [
        (
            "SERVICEBUS_CONNECTION_STRING",
            "queue_url",
            "Endpoint=sb://acme.servicebus.windows.net;SharedAccessKeyName=n;SharedAccessKey=hush",
        ),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            "jobstore_url",
            "AccountName=acme;AccountKey=hush;TableEndpoint=https://acme.table.core.windows.net",
        ),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            "imagestore_url",
            "AccountName=acme;AccountKey=hush;BlobEndpoint=https://acme.blob.core.windows.net",
        ),
    ],
)
def test_a_key_to_real_azure_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, field: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError) as refused:
        open_with(**{field: AZURE[field]})
    assert refused.value.target == variable
    assert "hush" not in refused.value.message


@pytest.mark.parametrize(
    ("field", "url"),
    [
        ("queue_url", "servicebus://"),
        ("jobstore_url", "aztables://"),
        ("imagestore_url", "azblob://acme"),
        ("imagestore_url", "azblob:///pictures"),
    ],
)
def test_a_url_without_its_names_is_refused(field: str, url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_with(**{field: url})
    assert refused.value.target == f"DARKROOM_{field.upper()}"
