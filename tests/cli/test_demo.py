"""`make demo` from end to end, with the engine that needs no weights."""

import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import CATALOG, ROOT, environment


def demo(folder: Path, prompt: str) -> subprocess.CompletedProcess[str]:
    (folder / "weights").mkdir()
    (folder / "catalog.yaml").write_text(CATALOG)
    where = ["--data-dir", str(folder / "data"), "--out", str(folder / "demo.png")]
    return subprocess.run(
        [sys.executable, ".ci/demo.py", "--install-seconds", "3", *where, "--", prompt],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(
            DARKROOM_WORKER_ENGINE="fake", DARKROOM_CATALOG=str(folder / "catalog.yaml")
        ),
    )


def test_the_demo_saves_a_picture_and_says_where_the_time_went(tmp_path: Path) -> None:
    shown = demo(tmp_path, """--it's "a" $HOME `square`""")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    for part in ("install 3 s", "start-up ", "queue ", "model load ", "denoise ", "store "):
        assert part in shown.stdout


def test_a_prompt_that_is_refused_makes_the_demo_fail(tmp_path: Path) -> None:
    shown = demo(tmp_path, " ")
    assert shown.returncode != 0
    assert "prompt: must not be blank" in shown.stderr
    assert "Traceback" not in shown.stderr
