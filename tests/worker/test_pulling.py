"""`darkroom models pull` from a hub: pinned, checked, once per folder, unharmed by crashes."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.catalog import load_catalog
from darkroom.errors import ModelUnavailable
from tests.cli.conftest import here
from tests.worker.hub import COMMIT, Hub, running_hub
from worker.manifests import Manifest, needed, parse_manifest
from worker.models import locate, locate_lora
from worker.pulling import STAGED, clear_leftovers

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
INK = b"ink" * 1000
CATALOG = f"""
version: 1
default_model: sdxl
models:
  - name: sdxl
    source: acme/sdxl
    revision: {COMMIT}
    scheduler: DDIMScheduler
    seconds_per_megapixel_step: 0.1
    licence: MIT
    loras:
      - name: ink
        source: acme/ink
        revision: {COMMIT}
        weight_name: ink.safetensors
        sha256: {hashlib.sha256(INK).hexdigest()}
pools:
  - {{name: long, models: [sdxl], max_gpu_seconds: 60}}
"""
FOLDER = f"acme--sdxl@{COMMIT}"


def pipeline_files() -> dict[str, bytes]:
    noise = random.Random(7)
    kinds = {"unet": ["diffusers", "UNet"], "scheduler": ["diffusers", "D"], "vae": [None, None]}
    return {
        "model_index.json": json.dumps({"_class_name": "X", **kinds}).encode(),
        "unet/config.json": b"{}",
        WEIGHTS: noise.randbytes(4_000_000),
        "unet/diffusion_pytorch_model.fp16.safetensors": b"another variant",
        "unet/diffusion_pytorch_model.bin": b"a pickle",
        "scheduler/scheduler_config.json": b"{}",
        "vae/config.json": b"{}",
        "sd_xl_base.safetensors": b"for other programs",
        "README.md": b"words",
    }


WANTED = {"model_index.json", "unet/config.json", WEIGHTS, "scheduler/scheduler_config.json"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        running.repositories = {
            "acme/sdxl": pipeline_files(),
            "acme/ink": {"ink.safetensors": INK, "other.safetensors": b"not asked for"},
        }
        yield running


class Cache:
    """A folder to pull to, and the command that does."""

    def __init__(self, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "cache"
        self.catalog = folder / "catalog.yaml"
        self.catalog.write_text(CATALOG)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)

    def words(self, names: tuple[str, ...]) -> list[str]:
        place = ["--cache", str(self.folder), "--catalog", str(self.catalog)]
        return ["models", "pull", *names, *place]

    def start(self, *names: str) -> subprocess.Popen[str]:
        """Begin to pull in another process."""
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *self.words(names)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pull(self, *names: str) -> tuple[int, str]:
        """Pull; return the exit status, and what was printed."""
        done = here(*self.words(names))
        return done.returncode, done.stdout + done.stderr

    def files(self) -> dict[str, bytes]:
        folder = self.folder / FOLDER
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "darkroom-manifest.json"
        }


@pytest.fixture
def cache(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Cache:
    return Cache(tmp_path, hub, monkeypatch)


def until(true: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.01)


def test_a_model_and_its_lora_are_pulled_once_and_found_by_the_worker(
    cache: Cache, hub: Hub
) -> None:
    status, said = cache.pull()
    assert status == 0, said
    assert "4 files, 4.0 MB: 4 fetched" in said or "4 files, 4.0 MB: 3 fetched" in said
    assert {path: hub.repositories["acme/sdxl"][path] for path in WANTED} == cache.files()
    catalog = load_catalog(cache.catalog, cache.folder)
    assert locate(catalog.models[0], catalog) == cache.folder / FOLDER
    assert locate_lora(catalog.models[0].loras[0], catalog).read_bytes() == INK
    assert not list((cache.folder / STAGED).iterdir())
    before = len(hub.requests)
    status, said = cache.pull("sdxl")
    assert (status, said.count("nothing new")) == (0, 2)
    assert len(hub.requests) == before, "what is there needs no hub"


def test_two_pullers_at_once_fetch_everything_once(cache: Cache, hub: Hub) -> None:
    hub.seconds_per_chunk = 0.02
    pullers = [cache.start("sdxl") for _ in range(2)]
    said = [puller.communicate(timeout=60)[0] for puller in pullers]
    assert [puller.returncode for puller in pullers] == [0, 0]
    assert hub.sent[WEIGHTS] == 4_000_000
    assert sum("nothing new" in each.splitlines()[0] for each in said) == 1
    assert set(cache.files()) == WANTED


def test_after_kill_9_the_next_puller_goes_on_and_nothing_half_done_is_seen(
    cache: Cache, hub: Hub
) -> None:
    second = "vae/diffusion_pytorch_model.safetensors"
    hub.repositories["acme/sdxl"][second] = random.Random(8).randbytes(4_000_000)
    index = hub.repositories["acme/sdxl"]["model_index.json"]
    hub.repositories["acme/sdxl"]["model_index.json"] = index.replace(b"null", b'"VAE"')
    hub.seconds_per_chunk = 0.05
    first = cache.start("sdxl")
    until(lambda: hub.sent.get(second, 0) > 1_000_000)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (cache.folder / FOLDER).exists()
    catalog = load_catalog(cache.catalog, cache.folder)
    with pytest.raises(ModelUnavailable):
        locate(catalog.models[0], catalog)
    hub.seconds_per_chunk = 0
    until(lambda: hub.serving == 0)
    hub.sent.clear()
    status, said = cache.pull("sdxl")
    assert status == 0, said
    assert WEIGHTS not in hub.sent, "a file that was whole must not come again"
    for path in (WEIGHTS, second):
        assert cache.files()[path] == hub.repositories["acme/sdxl"][path]
    assert not list((cache.folder / STAGED).iterdir())


@pytest.mark.parametrize("path", [WEIGHTS, "unet/config.json"])
def test_a_file_that_is_not_what_the_hub_lists_is_refused_by_name(
    cache: Cache, hub: Hub, path: str
) -> None:
    hub.corrupt = {path}
    status, said = cache.pull("sdxl")
    assert status == 1
    assert f"{path} is not the file" in said
    assert "Traceback" not in said
    assert not (cache.folder / FOLDER).exists()
    hub.corrupt = set()
    assert cache.pull("sdxl")[0] == 0
    assert set(cache.files()) == WANTED


def test_a_lora_that_is_not_the_pinned_one_is_refused(cache: Cache, hub: Hub) -> None:
    hub.repositories["acme/ink"]["ink.safetensors"] = b"another"
    status, said = cache.pull()
    assert status == 1
    assert "LoRA ink: ink.safetensors is not the file pinned in the catalog" in said


def test_a_damaged_folder_is_mended_with_what_is_good_of_it(cache: Cache, hub: Hub) -> None:
    cache.pull("sdxl")
    (cache.folder / FOLDER / "unet/config.json").unlink()
    hub.sent.clear()
    assert cache.pull("sdxl")[0] == 0
    assert set(cache.files()) == WANTED
    assert WEIGHTS not in hub.sent


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        (COMMIT, "main", "revision main can be moved: pin its commit, 0123456"),
        ("acme/sdxl", "acme/gone", "status 404"),
        ("acme/sdxl", "folder", "no hub repository"),
        ("licence: MIT", "licence: MIT\n    variant: bf16\n", ""),
    ],
)
def test_what_cannot_be_pulled_is_refused_in_one_line(
    cache: Cache, hub: Hub, was: str, becomes: str, said: str
) -> None:
    cache.catalog.write_text(CATALOG.replace(was, becomes, 1))
    status, line = cache.pull("sdxl")
    assert status == (1 if said else 0)
    assert said in line
    assert "Traceback" not in line


def test_a_hub_that_is_not_there_is_said(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    status, line = cache.pull("sdxl")
    assert (status, "from the hub: ConnectError" in line) == (1, True)
    assert cache.pull("nothing")[1].startswith("darkroom: UnknownModel")


def test_what_lies_beside_the_catalog_needs_no_pulling(cache: Cache, hub: Hub) -> None:
    for source in ("acme/sdxl", "acme/ink"):
        (cache.catalog.parent / source).mkdir(parents=True)
    status, said = cache.pull()
    assert (status, said.count("beside the catalog")) == (0, 2)
    assert not hub.requests


def test_leftovers_that_nobody_has_touched_for_a_day_are_removed(tmp_path: Path) -> None:
    file = tmp_path / STAGED / "acme--old@1" / "unet" / "weights"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half")
    assert clear_leftovers(tmp_path, time.time() + 3600) == []
    assert clear_leftovers(tmp_path, time.time() + 90_000) == ["acme--old@1"]
    assert not file.exists()


def test_of_a_repository_only_what_the_worker_reads_is_needed() -> None:
    there = [
        "model_index.json",
        "sd_xl_base.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/unet.py",
        "vae_1_0/diffusion_pytorch_model.safetensors",
        "text/model-00001-of-00002.safetensors",
        "text/model-00002-of-00002.safetensors",
        "text/model.safetensors.index.json",
        "text/model.fp16-00001-of-00001.safetensors",
        "text/model.safetensors.index.fp16.json",
        "text/openvino_model.xml",
        "tokenizer/merges.txt",
        "tokenizer/spiece.model",
    ]
    components = {"unet", "text", "tokenizer"}
    texts = ["model_index.json", "tokenizer/merges.txt", "tokenizer/spiece.model"]
    assert set(needed(there, components, "fp16")) == {
        *texts,
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "text/model.fp16-00001-of-00001.safetensors",
        "text/model.safetensors.index.fp16.json",
    }
    assert set(needed(there, components, None)) == {
        *texts,
        "unet/diffusion_pytorch_model.safetensors",
        "text/model-00001-of-00002.safetensors",
        "text/model-00002-of-00002.safetensors",
        "text/model.safetensors.index.json",
    }
    with pytest.raises(ModelUnavailable, match="unet has no weights of variant None"):
        needed(["unet/model.fp16.safetensors"], {"unet"}, None)


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "", "a\\b"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(path: str) -> None:
    file = {"path": path, "size": 1, "sha256": "0" * 64}
    text = json.dumps({"source": "a/b", "revision": "1", "files": [file]})
    with pytest.raises(ModelUnavailable, match=r"files\.0\.path"):
        parse_manifest(text.encode(), "there")


def test_a_manifest_knows_whether_its_folder_is_whole(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    file = {"path": "one", "size": 3, "sha256": digest}
    manifest = Manifest.model_validate({"source": "a", "revision": "1", "files": [file]})
    assert manifest.is_whole(tmp_path)
    (tmp_path / "one").write_bytes(b"ab")
    assert not manifest.is_whole(tmp_path)


def test_pulling_loads_no_tensors() -> None:
    code = (
        "import sys, cli.pulling, worker.pulling, worker.pulling_hub, worker.pulling_blobs;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
