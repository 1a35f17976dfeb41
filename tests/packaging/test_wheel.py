"""What `pip install darkroom` puts on a machine."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel holds, as site-packages would."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


def run_there(installed: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` with the wheel's files, and not with the checkout's."""
    prepared = f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"
    return subprocess.run(
        [sys.executable, "-c", prepared], cwd=installed.parent, capture_output=True, text=True
    )


def test_the_wheel_holds_the_packages_and_nothing_of_the_workshop(installed: Path) -> None:
    folders = {path.name for path in installed.iterdir() if not path.name.endswith("dist-info")}
    assert folders == {"darkroom", "api", "worker", "cli", "emulators", "models"}
    assert (installed / "api" / "ui" / "index.html").is_file()
    assert (installed / "darkroom" / "py.typed").is_file()
    assert not list(installed.rglob("node_modules"))


def test_the_default_catalog_and_its_models_are_in_the_wheel(installed: Path) -> None:
    code = """
from darkroom.catalog import load_catalog
from darkroom.settings import DEFAULT_CATALOG
catalog = load_catalog(DEFAULT_CATALOG)
for model in catalog.models:
    print(catalog.folder / model.source / "model_index.json")
"""
    found = run_there(installed, f"exec({code!r})")
    assert found.returncode == 0, found.stderr
    named = [Path(line) for line in found.stdout.splitlines()]
    assert named
    for path in named:
        assert path.is_relative_to(installed)
        assert path.is_file(), path


def test_the_installed_command_answers(installed: Path) -> None:
    answered = run_there(installed, "from cli.main import main; main(['--version'])")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert answered.stdout.strip() == f"darkroom {version}"


def test_the_command_is_declared(installed: Path) -> None:
    (declared,) = installed.glob("*.dist-info/entry_points.txt")
    assert re.search(r"^darkroom = cli\.main:main$", declared.read_text(), re.M)
