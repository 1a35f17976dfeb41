"""URLs choose adapters; what cannot be opened is said by variable or by package."""

import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.announcing import AnnouncingJobStore
from darkroom.catalog import Catalog
from darkroom.errors import JobNotFound, MissingExtra, SettingsError
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.jobstores.sqlite import SqliteJobStore
from darkroom.queues.memory import MemoryJobQueue
from darkroom.queues.sqlite import SqliteJobQueue
from darkroom.settings import DarkroomSettings
from darkroom.wiring import open_backends
from tests.darkroom.test_catalog import GOOD
from tests.samples import PNG, make_job, make_message

CATALOG = Catalog.model_validate(GOOD)
IN_MEMORY = {
    "queue_url": "memory://",
    "jobstore_url": "memory://",
    "imagestore_url": "memory://",
}


def settings(**urls: str) -> DarkroomSettings:
    return DarkroomSettings.model_validate({**IN_MEMORY, **urls})


async def test_every_pool_gets_a_queue_of_its_own() -> None:
    backends = open_backends(settings(), CATALOG)
    assert list(backends.queues) == ["short", "long"]
    await backends.queues["short"].send(make_message())
    assert await backends.queues["long"].lease(1, 0) == []
    assert len(await backends.queues["short"].lease(1, 0)) == 1
    assert isinstance(backends.queues["short"], MemoryJobQueue)
    await backends.close()


async def test_the_defaults_are_files_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backends = open_backends(DarkroomSettings(), CATALOG)
    assert isinstance(backends.queues["short"], SqliteJobQueue)
    assert isinstance(backends.jobs, AnnouncingJobStore)
    assert isinstance(backends.jobs.store, SqliteJobStore)
    assert isinstance(backends.images, FilesystemImageStore)
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is needed"
    job = make_job()
    await backends.jobs.create(job)
    await backends.queues["short"].send(make_message())
    assert await backends.queues["long"].lease(1, 0) == [], "pools share the file, not messages"
    await backends.images.put(job.id, "0.png", PNG)
    await backends.close()
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        "queue.db",
        "jobs.db",
        "images",
    }


async def test_a_fourth_slash_makes_a_path_absolute(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/deep/down/jobs.db"
    assert url.startswith("sqlite:////")
    backends = open_backends(settings(jobstore_url=url), CATALOG)
    with pytest.raises(JobNotFound):
        await backends.jobs.get("local-none")
    assert (tmp_path / "deep/down/jobs.db").exists()
    await backends.close()


async def test_the_queue_obeys_the_settings(tmp_path: Path) -> None:
    for url in ("memory://", f"sqlite:///{tmp_path}/queue.db"):
        asked = DarkroomSettings.model_validate(
            {**IN_MEMORY, "queue_url": url, "max_delivery_count": 1}
        )
        backends = open_backends(asked, CATALOG)
        queue = backends.queues["short"]
        await queue.send(make_message())
        for _ in range(asked.max_delivery_count + 1):  # the last buries, and runs nothing
            assert (await queue.depth()).dead_lettered == 0
            (lease,) = await queue.lease(1, 0)
            await lease.abandon()
        assert (await queue.depth()).dead_lettered == 1
        await backends.close()


@pytest.mark.parametrize("url", ["redis://localhost", "", "data/queue.db", "file:///x", "SQLITE"])
def test_an_unknown_scheme_names_the_variable_and_the_schemes(url: str) -> None:
    with pytest.raises(SettingsError, match=r"memory://, sqlite://, servicebus://") as refused:
        open_backends(settings(queue_url=url), CATALOG)
    assert refused.value.target == "DARKROOM_QUEUE_URL"
    assert "DARKROOM_QUEUE_URL" in refused.value.message


@pytest.mark.parametrize("field", ["jobstore_url", "imagestore_url"])
def test_each_family_names_its_own_variable(field: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_backends(settings(**{field: "ftp://x"}), CATALOG)
    assert refused.value.target == f"DARKROOM_{field.upper()}"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/queue.db"])
def test_a_path_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"relative/path") as refused:
        open_backends(settings(queue_url=url), CATALOG)
    assert refused.value.target == "DARKROOM_QUEUE_URL"


@pytest.mark.parametrize(
    ("field", "url", "vendor", "extra"),
    [
        ("queue_url", "servicebus://acme.servicebus.windows.net", "azure", "azure"),
        ("jobstore_url", "aztables://acme", "azure", "azure"),
        ("imagestore_url", "azblob://acme/images", "azure", "azure"),
        ("queue_url", "kubernetes://workers", "lightkube", "kubernetes"),
    ],
)
def test_a_missing_extra_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, field: str, url: str, vendor: str, extra: str
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == vendor]:
        monkeypatch.delitem(sys.modules, module)
    for module in [name for name in sys.modules if name.startswith("darkroom.") and vendor in name]:
        monkeypatch.delitem(sys.modules, module)
    for module in (
        "darkroom.azure_wiring",
        "darkroom.azure_clients",
        "darkroom.queues.service_bus",
        "darkroom.jobstores.azure_tables",
        "darkroom.imagestores.azure_blobs",
        "darkroom.kubernetes_wiring",
        "darkroom.kubernetes_clients",
        "darkroom.queues.kubernetes_jobs",
        "darkroom.queues.kubernetes_manifests",
        "darkroom.queues.kubernetes_pods",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, vendor, None)  # what an uninstalled package looks like
    with pytest.raises(MissingExtra, match=rf"pip install 'darkroom\[{extra}\]'"):
        open_backends(settings(**{field: url}), CATALOG)


def test_the_embedded_backends_import_no_vendor() -> None:
    program = (
        "import sys, darkroom.wiring;"
        "print([n for n in sys.modules if n.split('.')[0] in"
        " {'azure', 'lightkube', 'kubernetes', 'fastapi', 'torch', 'aiohttp'}])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
