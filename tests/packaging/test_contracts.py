"""`make lint` fails when somebody crosses a border: violations are planted in a copy."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("darkroom", "api", "worker", "cli", "emulators")
VIOLATIONS = {
    "tiers": ("api/planted.py", "import worker.loop\n"),
    "darkroom-layers": ("darkroom/planted.py", "NOBODY_PLACED_ME = True\n"),
    "adapters": ("api/planted_too.py", "import darkroom.queues.sqlite\n"),
    "no-torch": ("darkroom/jobstores/planted.py", "import torch\n"),
    "pure": ("darkroom/clock.py", "import sqlite3\n"),
    "web": ("worker/planted.py", "import fastapi\n"),
    "emulators": ("emulators/planted.py", "import darkroom.jobs\n"),
    "product": ("worker/planted_too.py", "import emulators\n"),
    "acyclic": ("worker/backoff.py", "import worker.loop\n"),
}


def contracts() -> dict[str, str]:
    """The name of each contract by its id."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract["name"] for contract in settings["contracts"]}


def copy_of_the_packages(folder: Path) -> Path:
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says when every border is crossed once."""
    folder = copy_of_the_packages(tmp_path_factory.mktemp("planted"))
    for path, line in VIOLATIONS.values():
        with (folder / path).open("a") as file:
            file.write(line)
    found = lint_imports(folder)
    assert found.returncode != 0
    return " ".join(found.stdout.split())


def test_the_borders_hold_as_the_code_stands(tmp_path: Path) -> None:
    found = lint_imports(copy_of_the_packages(tmp_path))
    assert found.returncode == 0, found.stdout


def test_there_is_a_violation_for_every_contract() -> None:
    assert VIOLATIONS.keys() == contracts().keys()


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_crossing_a_border_fails_the_lint(planted: str, contract: str) -> None:
    assert f"{contracts()[contract]} BROKEN" in planted


@pytest.mark.parametrize(
    ("path", "code", "rule"),
    [
        ("api/planted.py", 'import os\n\nHOME = os.environ["HOME"]\n', "TID251"),
        ("worker/planted.py", 'import os\n\nHOME = os.getenv("HOME")\n', "TID251"),
        ("darkroom/planted.py", "def f(x):\n    return x\n", "ANN001"),
        ("darkroom/planted.py", "try:\n    pass\nexcept Exception:\n    pass\n", "BLE001"),
    ],
)
def test_ruff_refuses_what_the_house_does_not_do(path: str, code: str, rule: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", path, "-"]
    found = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True)
    assert found.returncode == 1
    assert rule in found.stdout


def test_a_settings_module_may_read_the_environment() -> None:
    code = 'import os\n\nHOME = os.environ["HOME"]\n'
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251"]
    command += ["--stdin-filename", "api/settings.py", "-"]
    assert subprocess.run(command, cwd=ROOT, input=code, text=True).returncode == 0
