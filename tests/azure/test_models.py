"""Models pushed to a Blob container and pulled from it: by digests, unharmed by crashes."""

import asyncio
import hashlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from bench.proxy import FaultProxy
from darkroom.catalog import load_catalog
from tests.azure.emulated import Azurite, fresh_name
from tests.cli.conftest import here
from worker.manifests import MANIFEST
from worker.models import locate, locate_lora
from worker.pulling import STAGED

ROOT = Path(__file__).resolve().parents[2]
INK = b"ink" * 1000
CATALOG = f"""
version: 1
default_model: shapes
models:
  - name: shapes
    source: shapes
    revision: "7"
    scheduler: DDIMScheduler
    seconds_per_megapixel_step: 0.1
    licence: MIT
    loras:
      - {{name: ink, source: loras/ink.safetensors, sha256: {hashlib.sha256(INK).hexdigest()}}}
pools:
  - {{name: long, models: [shapes], max_gpu_seconds: 60}}
"""
NAME = "shapes@7"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
FILES = {
    "model_index.json": b'{"unet": ["diffusers", "U"], "vae": ["diffusers", "V"]}',
    UNET: random.Random(1).randbytes(3_000_000),
    VAE: random.Random(2).randbytes(3_000_000),
}


@dataclass
class Site:
    """A machine that has the model beside its catalog, a container, and a machine without."""

    folder: Path
    connection_string: str
    container: str

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def bare_catalog(self) -> Path:
        return self.folder / "bare" / "catalog.yaml"

    def client(self) -> ContainerClient:
        service = BlobServiceClient.from_connection_string(self.connection_string)
        return service.get_container_client(self.container)

    async def start(
        self, *words: str, connection_string: str | None = None
    ) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,  # noqa: TID251
            "AZURE_STORAGE_CONNECTION_STRING": connection_string or self.connection_string,
            "PYTHONPATH": str(ROOT),
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cli", "models", *words),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    def run(self, *words: str) -> tuple[int, str]:
        done = here("models", *words)
        return done.returncode, done.stdout + done.stderr

    def push(self) -> tuple[int, str]:
        origin = str(self.folder / "full" / "catalog.yaml")
        return self.run("push", "--to", self.url, "--catalog", origin)

    def pull(self) -> tuple[int, str]:
        return self.run(*self.pulling)

    @property
    def url(self) -> str:
        return f"azblob://account/{self.container}"

    @property
    def pulling(self) -> list[str]:
        place = ["--cache", str(self.cache), "--catalog", str(self.bare_catalog)]
        return ["pull", "--from", self.url, *place]


@pytest.fixture
def site(tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.endpoints.connection_string)
    for name in ("full", "bare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "catalog.yaml").write_text(CATALOG)
    beside = {f"shapes/{path}": body for path, body in FILES.items()}
    for path, body in {**beside, "loras/ink.safetensors": INK}.items():
        file = tmp_path / "full" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    (tmp_path / "full" / "shapes" / "unet" / "unet.py").write_text("code")
    return Site(tmp_path, azurite.endpoints.connection_string, fresh_name("models"))


def pulled(site: Site) -> dict[str, bytes]:
    folder = site.cache / NAME
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def test_what_one_machine_pushed_another_pulls(site: Site) -> None:
    status, said = site.push()
    assert (status, said.count("3 files: 3 sent")) == (0, 1), said
    assert site.push()[1].count("0 sent") == 2, "what is there is not sent again"
    assert f"{NAME}/unet/unet.py" not in set(site.client().list_blob_names()), "no code"
    status, said = site.pull()
    assert (status, said.count("fetched in")) == (0, 2), said
    assert pulled(site) == FILES
    catalog = load_catalog(site.bare_catalog, site.cache)
    assert locate(catalog.models[0], catalog) == site.cache / NAME
    assert locate_lora(catalog.models[0].loras[0], catalog).read_bytes() == INK
    assert site.pull()[1].count("nothing new") == 2


def test_a_damaged_blob_is_refused_by_name_and_mended_by_the_next_pull(site: Site) -> None:
    site.push()
    container = site.client()
    damaged = bytes([FILES[VAE][0] ^ 1]) + FILES[VAE][1:]
    container.upload_blob(f"{NAME}/{VAE}", damaged, overwrite=True)
    status, said = site.pull()
    assert status == 1
    assert f"model shapes: {VAE} is not the file that its source lists" in said
    assert "Traceback" not in said
    assert not (site.cache / NAME).exists()
    container.upload_blob(f"{NAME}/{VAE}", FILES[VAE], overwrite=True)
    assert site.pull()[0] == 0
    assert pulled(site) == FILES


def test_a_part_of_a_file_is_gone_on_with(site: Site) -> None:
    """Only its end is asked for: a wrong beginning is kept, and found out by the digest."""
    site.push()
    part = site.cache / STAGED / NAME / f"{UNET}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" + FILES[UNET][1:1_000_000])
    status, said = site.pull()
    assert (status, f"{UNET} is not the file" in said) == (1, True)
    part.write_bytes(FILES[UNET][:1_000_000])
    assert site.pull()[0] == 0
    assert pulled(site) == FILES


async def test_after_kill_9_the_next_puller_ends_the_work(site: Site) -> None:
    site.push()
    port = next(
        int(part.split(":")[2].split("/")[0])
        for part in site.connection_string.split(";")
        if part.startswith("BlobEndpoint")
    )
    async with FaultProxy(port).running() as proxy:
        proxy.delay_seconds = 0.02
        slow = site.connection_string.replace(f":{port}", f":{proxy.port}")
        first = await site.start(*site.pulling, connection_string=slow)
        end = time.monotonic() + 30
        while not (site.cache / STAGED / NAME / UNET).exists():
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        proxy.blackhole(on=True)
        first.send_signal(signal.SIGKILL)
        await first.wait()
    assert not (site.cache / NAME).exists()
    status, said = site.pull()
    assert (status, "fetched in" in said) == (0, True)
    assert pulled(site) == FILES
    assert not list((site.cache / STAGED).iterdir())


async def test_two_pullers_at_once_both_end_well(site: Site) -> None:
    site.push()
    both = [await site.start(*site.pulling) for _ in range(2)]
    said = [(await each.communicate())[0].decode() for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert sum("nothing new" in each.splitlines()[0] for each in said) == 1
    assert pulled(site) == FILES


def test_a_model_that_was_never_pushed_is_said(site: Site) -> None:
    status, said = site.pull()
    assert (status, f"has no {NAME}/{MANIFEST}" in said) == (1, True)
    status, said = site.run("push", "--to", "hub")
    assert (status, "azblob://" in said) == (1, True)
