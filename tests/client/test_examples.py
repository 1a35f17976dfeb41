"""Every example of docs/clients.md runs, against a real server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import Live

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
EXAMPLES = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8080"
COMMANDS = {"python": [sys.executable, "-c"], "sh": ["bash", "-euo", "pipefail", "-c"]}


def test_the_page_has_examples_of_the_kinds_that_are_run() -> None:
    assert {language for language, _ in EXAMPLES} == set(COMMANDS)
    assert all(ADDRESS in text for _, text in EXAMPLES)


@pytest.mark.parametrize(
    ("language", "text"),
    [pytest.param(*found, id=f"{number}-{found[0]}") for number, found in enumerate(EXAMPLES)],
)
def test_an_example_runs(server: Live, tmp_path: Path, language: str, text: str) -> None:
    if language == "sh" and not shutil.which("curl"):
        pytest.skip("there is no curl here")
    command = [*COMMANDS[language], text.replace(ADDRESS, server.url)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    for picture in tmp_path.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG"), picture.name
    if ".png" in text:
        assert list(tmp_path.glob("*.png"))
