"""What the built images hold, and that they run: where `make images` has been here."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from darkroom import __version__
from tests.packaging.containers import Image, run, running
from tests.packaging.test_tree import name, pinned

ROOT = Path(__file__).resolve().parents[2]
TIERS = ["api", "worker"]
USER = 10001
OF_TORCH = {"torch", "diffusers", "transformers", "accelerate", "triton"}
OF_THE_WEB = {"fastapi", "starlette", "uvicorn"}
BUILD_TOOLS = re.compile(
    r"(x86_64-linux-gnu-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|ld|as|make|cmake|ninja|git|curl|wget"
    r"|pip|pip3|pip3\.\d+|wheel|easy_install|uv|conda)(-\d+)?"
)


@pytest.fixture(params=TIERS)
def either(request: pytest.FixtureRequest) -> Image:
    return request.getfixturevalue(request.param)


def files(found: Image) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(found.root):
        for one in names:
            path = Path(folder) / one
            yield path, path.lstat()


def distributions(found: Image) -> dict[str, str]:
    """Name to version of every package in the environment."""
    folders = found.packages().glob("*.dist-info")
    parts = [folder.name.removesuffix(".dist-info").rsplit("-", 1) for folder in folders]
    return {name(one): version for one, version in parts}


def test_the_api_has_no_torch_and_the_worker_no_web_framework(api: Image, worker: Image) -> None:
    assert not OF_TORCH & distributions(api).keys()
    assert not [one for one in OF_TORCH if (api.packages() / one).exists()]
    assert not OF_THE_WEB & distributions(worker).keys()
    assert {"torch", "diffusers"} <= distributions(worker).keys()
    assert {"fastapi", "uvicorn", "typer", "redis"} <= distributions(api).keys()


def test_every_package_is_the_one_of_the_constraints(either: Image) -> None:
    pins = pinned()
    found = {one: version.split("+")[0] for one, version in distributions(either).items()}
    del found["darkroom"]
    assert len(found) > 30
    # torch's CUDA wheels bring packages of NVIDIA's that its own metadata pins.
    ours = {one for one in found if not one.startswith(("nvidia-", "triton", "cuda-"))}
    assert {one: found[one] for one in ours} == {one: pins.get(one) for one in ours}


def test_no_compiler_no_pip_and_no_cache_is_in_it(either: Image) -> None:
    tools, leftovers = [], []
    for path, status in files(either):
        inside = path.relative_to(either.root)
        if status.st_mode & 0o111 and BUILD_TOOLS.fullmatch(path.name):
            tools.append(inside)
        if path.suffix == ".whl" or ".cache" in inside.parts:
            leftovers.append(inside)
    assert not [path for path in tools if "bin" in path.parts]
    assert not leftovers
    for package in ("pip", "setuptools", "ensurepip"):
        assert not list(either.root.glob(f"usr/**/{package}")), package
        assert not (either.packages() / package).exists()


def test_nothing_of_the_machine_that_built_it_is_in_it(either: Image) -> None:
    assert [path.name for path in (either.root / "opt").iterdir()] == ["darkroom"]
    for place in ("etc/pip.conf", "run/secrets", "build", "product", "root/.config"):
        assert not (either.root / place).exists(), place
    assert not (either.packages() / "emulators").exists()
    assert not (either.packages() / "tests").exists()


def test_no_file_lets_a_process_become_another_user(either: Image) -> None:
    raising = stat.S_ISUID | stat.S_ISGID
    assert not [
        path
        for path, status in files(either)
        if stat.S_ISREG(status.st_mode) and status.st_mode & raising
    ]


def test_nothing_of_the_image_belongs_to_its_user_but_the_folders_for_data(either: Image) -> None:
    assert not [path for path, status in files(either) if status.st_uid == USER]
    owned = {path.name for path in either.root.iterdir() if path.stat().st_uid == USER}
    assert owned <= {"data", "cache"}
    assert "data" in owned


@pytest.mark.parametrize("tier", TIERS)
def test_the_image_says_who_runs_what(tier: str, request: pytest.FixtureRequest) -> None:
    config = request.getfixturevalue(tier).config
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["/opt/darkroom/bin/darkroom"]
    assert config["Cmd"] == [tier]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.title"] == f"darkroom-{tier}"
    assert not [one for one in config["Env"] if one.startswith(("PIP_", "NVIDIA_VISIBLE"))]


def test_all_code_is_compiled_for_good(either: Image) -> None:
    """The root is read-only and a pod starts cold: nothing is compiled or compared at the start."""
    for package in ("darkroom", "api", "worker", "cli", "pydantic"):
        for path in (either.packages() / package).rglob("*.py"):
            assert list((path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")), path
    every = list(either.packages().rglob("*.pyc"))
    assert len(every) > 1000
    unchecked_hash = b"\x01\x00\x00\x00"
    assert not [path for path in every if _bytes_4_to_8(path) != unchecked_hash]


def _bytes_4_to_8(compiled: Path) -> bytes:
    with compiled.open("rb") as file:
        return file.read(8)[4:]


def test_the_demo_model_and_its_catalog_are_in_it(either: Image) -> None:
    models = either.root / "opt" / "darkroom" / "models"
    assert (models / "catalog.yaml").is_file()
    assert (models / "demo" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_the_model_that_test_clusters_run_is_where_their_values_say(either: Image) -> None:
    files = (ROOT / "charts" / "darkroom" / "ci").glob("*-values.yaml")
    named = set(re.findall(r"source: (/\S+)", "".join(path.read_text() for path in files)))
    assert named
    assert not [path for path in named if not (either.root / path.lstrip("/")).is_dir()]


def test_it_starts_on_a_read_only_root(either: Image, tmp_path: Path) -> None:
    status, said = run(either, tmp_path, "--version")
    assert (status, said) == (0, f"darkroom {__version__}")


def test_the_worker_has_the_command_that_fills_a_volume_with_models(
    worker: Image, tmp_path: Path
) -> None:
    status, said = run(worker, tmp_path, "models", "pull", "--help")
    assert status == 0, said
    assert "--cache" in said


def test_an_api_without_credentials_refuses_to_serve_the_network(
    api: Image, tmp_path: Path
) -> None:
    status, said = run(api, tmp_path, environment={"DARKROOM_API_PORT": "0"})
    assert status == 2
    assert "DARKROOM_API_ALLOW_ANONYMOUS_REMOTE" in said


def test_a_job_goes_through_the_containers_of_both_tiers(
    api: Image, worker: Image, tmp_path: Path
) -> None:
    """API and worker share a volume, the command of a third container asks: a picture comes."""
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, USER, USER)
    loopback = {"DARKROOM_API_HOST": "127.0.0.1", "DARKROOM_API_PORT": "0"}
    threads = {"OMP_NUM_THREADS": "1", "DARKROOM_WORKER_IMAGE_DIGEST": "sha256:" + "0" * 64}
    shared = {"/data": data}
    with (
        running(api, tmp_path, mounts=shared, environment=loopback) as serving,
        running(worker, tmp_path, mounts=shared, environment=threads) as working,
    ):
        url = serving.logged("listening")["url"]
        working.logged("ready")
        asked = ("submit", "a red circle on a white background", "--out", "/data/picture.png")
        status, said = run(api, tmp_path, *asked, "--url", url, mounts=shared)
        assert status == 0, said
        (job,) = httpx.get(f"{url}/v1/jobs").json()["value"]
        assert job["status"] == "Succeeded"
        assert job["provenance"]["image_digest"] == threads["DARKROOM_WORKER_IMAGE_DIGEST"]
        assert working.stop() == 0
        assert serving.stop() == 0
    picture = data / "picture.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_uid == USER
