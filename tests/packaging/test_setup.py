"""`.ci/setup` installs once per state of the constraints and the project file, and never twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands for Python: makes a "virtual environment" that notes what it is asked to install.
PYTHON = """#!/usr/bin/env bash
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "${@: -1}/bin"
  printf '#!/usr/bin/env bash\\nif [ "$2" = pip ]; then echo "$*" >>installed; fi\\n' \\
    >"${@: -1}/bin/python"
  chmod +x "${@: -1}/bin/python"
else
  exec "$REAL_PYTHON" "$@"
fi
"""


class Checkout:
    """A folder with the files that `.ci/setup` reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".ci").mkdir()
        for name in (".ci/setup", "constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        (folder / "python").write_text(PYTHON)
        (folder / "python").chmod(0o755)

    def setup(self, what: str) -> list[str]:
        """Run it; return the pip commands of this run."""
        log = self.folder / "installed"
        log.unlink(missing_ok=True)
        stand_in = {"PYTHON": str(self.folder / "python"), "REAL_PYTHON": sys.executable}
        variables = {**os.environ, **stand_in}  # noqa: TID251
        ran = subprocess.run(
            [".ci/setup", what], cwd=self.folder, env=variables, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return log.read_text().splitlines() if log.exists() else []

    def change(self, name: str, before: str, after: str) -> None:
        text = (self.folder / name).read_text()
        assert before in text
        (self.folder / name).write_text(text.replace(before, after))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_run_installs_through_the_constraints(checkout: Checkout) -> None:
    commands = checkout.setup("run")
    assert commands
    assert all("-c constraints.txt" in command for command in commands)
    assert commands[-1].endswith("-e .[api,worker,cli]")


def test_a_second_run_installs_nothing(checkout: Checkout) -> None:
    checkout.setup("run")
    assert checkout.setup("run") == []


def test_everything_covers_what_the_demo_needs(checkout: Checkout) -> None:
    checkout.setup("all")
    assert checkout.setup("run") == []
    assert checkout.setup("all") == []


def test_the_demo_does_not_cover_everything(checkout: Checkout) -> None:
    checkout.setup("run")
    assert checkout.setup("all")[-1].endswith("-e .[all]")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("constraints.txt", "pip install", "pip  install"), ("pyproject.toml", '"rich>', '"richer>')],
)
def test_a_change_of_what_is_wanted_installs_again(
    checkout: Checkout, name: str, before: str, after: str
) -> None:
    checkout.setup("all")
    checkout.change(name, before, after)
    assert checkout.setup("run")


def test_a_change_of_what_lint_wants_installs_nothing(checkout: Checkout) -> None:
    checkout.setup("all")
    checkout.change("pyproject.toml", "line-length = 100", "line-length = 99")
    assert checkout.setup("all") == []


def test_words_that_mean_nothing_are_refused(checkout: Checkout) -> None:
    ran = subprocess.run([".ci/setup", "some"], cwd=checkout.folder, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "run|azure|all" in ran.stderr
