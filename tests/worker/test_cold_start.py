"""A worker with the real engine, as a pod has it: no way out, nothing to write to but its data."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.catalog import Catalog, Pool, load_catalog
from darkroom.errors import QueueUnavailable, SettingsError, StoreUnavailable
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.jobs import Job, JobState, new_job_id
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.messages import message_for
from darkroom.queues import sqlite as sqlite_queues
from darkroom.settings import DEFAULT_CATALOG
from darkroom.sqlite import Database
from emulators.processes import free_port
from tests.samples import make_generation
from tests.worker.probing import get
from tests.worker.processes import Machine, WorkerProcess
from tests.worker.site import MAX_DELIVERIES, Site, write_catalog
from worker.warming import models_to_warm

JAIL = """
import os, sys

OURS = tuple(os.environ["MAY_WRITE"].split(":"))
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(event, args):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        tell("NETWORK", args[1])
    if event in {"socket.getaddrinfo", "socket.gethostbyname"} and args[0] not in LOCAL:
        tell("NETWORK", args[0])
    if event in CHANGES or (event == "open" and (args[2] or 0) & WRITES):
        path = os.path.abspath(os.fsdecode(args[0])) if not isinstance(args[0], int) else OURS[0]
        if not path.startswith(OURS):
            tell("WRITE", path)


def tell(what, where):
    os.write(2, f"{what} {where}\\n".encode())
    raise OSError(30, "this is a jail")


LOCAL = {"127.0.0.1", None, "0.0.0.0", os.uname().nodename}
sys.addaudithook(watch)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One whose workers may open no connection, and write to its data folder alone."""
    jail = tmp_path / "jail"
    jail.mkdir()
    (jail / "sitecustomize.py").write_text(JAIL)
    data = tmp_path / "data"
    data.mkdir()
    machine = Machine(data)
    machine.settings |= {
        "DARKROOM_CATALOG": str(DEFAULT_CATALOG),
        "DARKROOM_WORKER_ENGINE": "diffusers",
        "DARKROOM_LEASE_SECONDS": "30",
        "DARKROOM_RENEW_SECONDS": "10",
        "PYTHONPATH": str(jail),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MAY_WRITE": f"{data}:/dev/",
        "HOME": "/proc/no-home",
        "TMPDIR": str(data),
        "TORCHINDUCTOR_CACHE_DIR": str(data / "inductor"),  # torch has set it, if it is loaded here
    }
    return machine


async def until_ready(url: str, worker: WorkerProcess) -> list[tuple[int, str]]:
    """Ask both probes until the worker is ready; return what /readyz said before."""
    before = []
    async with asyncio.timeout(100):
        while (told := await asyncio.to_thread(get, f"{url}/readyz"))[0] != 200:
            if told[0] and (await asyncio.to_thread(get, f"{url}/livez"))[0] != 200:
                pytest.fail("a worker that warms up is alive")
            assert worker.process.returncode is None, worker.events
            before.append(told)
            await asyncio.sleep(0.1)
    return before


async def test_a_worker_gets_ready_and_draws_without_network_or_a_disk_to_write_to(
    machine: Machine,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    queue = sqlite_queues.SqliteJobQueue(
        Database(machine.folder / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable),
        "local",
        lease_seconds=30,
        max_delivery_count=MAX_DELIVERIES + 1,
    )
    jobs = sqlite_jobs.SqliteJobStore(
        Database(machine.folder / "jobs.db", sqlite_jobs.SCHEMA, StoreUnavailable)
    )
    images = FilesystemImageStore(machine.folder / "images")
    site = Site(queue=queue, jobs=jobs, images=images, catalog=load_catalog(DEFAULT_CATALOG))
    async with machine.worker(metrics_port=port, warm_steps=1) as worker:
        before = await until_ready(url, worker)
        assert (503, "warming up\n") in before
        job_id = await submit(site)
        job = await site.ended(job_id, seconds=60)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
    await queue.close()
    await jobs.close()
    events = [line["event"] for line in worker.events]
    assert events.index("model_warm") < events.index("ready")
    assert (job.status, job.provenance and job.provenance.device) == (JobState.SUCCEEDED, "cpu")
    assert job.usage.load_seconds < 0.1, "it was loaded before the job came"
    assert not [line for line in events if line.startswith(("NETWORK", "WRITE"))]


async def submit(site: Site) -> str:
    """Admit a small job of the demo model."""
    now = site.clock.now()
    small = {"width": 64, "height": 64, "num_inference_steps": 2, "num_images": 1}
    asked = make_generation(model="demo", scheduler="DDIMScheduler", **small)
    job = Job(
        id=new_job_id("local", "acme"),
        tenant="acme",
        pool="local",
        generation=asked,
        created_at=now,
        updated_at=now,
    )
    created = (await site.jobs.create(job)).job
    await site.queue.send(message_for(created))
    return created.id


def test_a_jail_that_would_hold_nothing_back_is_noticed(machine: Machine, tmp_path: Path) -> None:
    """The test above can fail: what it forbids is told and refused."""
    code = (
        "import socket, pathlib\n"
        "for act in (lambda: socket.create_connection(('192.0.2.1', 80), 1),\n"
        "            lambda: socket.getaddrinfo('huggingface.co', 443),\n"
        "            lambda: pathlib.Path('/var/tmp/darkroom-was-here').write_text('')):\n"
        "    try: act()\n"
        "    except OSError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **machine.settings},  # noqa: TID251
        capture_output=True,
        text=True,
    )
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["NETWORK", "NETWORK", "WRITE"]


@pytest.fixture
def catalog(tmp_path: Path) -> tuple[Catalog, Pool]:
    path = write_catalog(tmp_path)
    one = load_catalog(path)
    several = [one.models[0].model_copy(update={"name": name}) for name in ("a", "b", "c")]
    text = {
        "version": 1,
        "default_model": "b",
        "models": [json.loads(model.model_dump_json()) for model in several],
        "pools": [
            {"name": "both", "models": ["a", "b"], "max_gpu_seconds": 60},
            {"name": "other", "models": ["c"], "max_gpu_seconds": 60},
        ],
    }
    known = Catalog.model_validate(text)
    return known, known.pools[0]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("default", ["b"]),
        ("all", ["a", "b"]),
        ("b, a", ["b", "a"]),
        ("default,all", ["b", "a"]),
        ("", []),
    ],
)
def test_the_models_to_warm_are_those_of_the_setting(
    catalog: tuple[Catalog, Pool], wanted: str, expected: list[str]
) -> None:
    assert [model.name for model in models_to_warm(wanted, *catalog)] == expected


def test_the_default_of_a_pool_without_the_default_model_is_its_first(
    catalog: tuple[Catalog, Pool],
) -> None:
    known, _ = catalog
    assert [model.name for model in models_to_warm("default", known, known.pools[1])] == ["c"]


def test_a_model_that_the_pool_does_not_serve_is_refused(catalog: tuple[Catalog, Pool]) -> None:
    with pytest.raises(SettingsError, match=r"WARM_MODELS: pool both serves no c; it has: a, b"):
        models_to_warm("a,c", *catalog)


async def test_the_pod_of_a_kubernetes_job_loads_nothing_ahead(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    async with machine.worker(job_name="some-job") as worker:
        await worker.logged("ready")
    assert "model_warm" not in {line["event"] for line in worker.events}
    async with machine.worker() as worker:
        await worker.logged("ready")
    assert "model_warm" in {line["event"] for line in worker.events}
