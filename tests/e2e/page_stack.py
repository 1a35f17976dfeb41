"""The API and one worker as real processes on embedded backends, for the tests of the page."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cli.settings import child_environment

START_SECONDS = 100.0
STOP_SECONDS = 10.0
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def running_darkroom(folder: Path, **variables: str) -> Iterator[str]:
    """Run the API on a free port and a worker beside it; yield the page's address."""
    with ExitStack() as processes:
        environment = _environment(folder, variables)
        log = folder / "api.log"
        api = processes.enter_context(_tier("api", environment, log))
        processes.enter_context(_tier("worker", environment, folder / "worker.log"))
        yield _address(api, log)


def _environment(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    outside = child_environment(data_dir=folder, catalog=None)
    ours = ("DARKROOM_QUEUE_URL", "DARKROOM_JOBSTORE_URL", "DARKROOM_IMAGESTORE_URL")
    kept = {
        name: value
        for name, value in outside.items()
        if not name.startswith("DARKROOM_") or name in ours
    }
    return {
        **kept,
        "DARKROOM_API_PORT": "0",
        "DARKROOM_API_WATCH_SECONDS": "0.05",
        "DARKROOM_API_SHUTDOWN_SECONDS": "1",  # pages that still wait need not be waited for
        "DARKROOM_WORKER_POLL_SECONDS": "0.5",
        "DARKROOM_WORKER_PROGRESS_SECONDS": "0",
        "OMP_NUM_THREADS": "1",
        **variables,
    }


@contextmanager
def _tier(name: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``darkroom NAME``; our end of its input closes with us, so it never outlives us."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", name, "--watch-parent"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _address(api: subprocess.Popen[bytes], log: Path) -> str:
    """Return where the API says that it listens."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and api.poll() is None:
        for line in log.read_text().splitlines():
            if '"listening"' in line:
                return str(json.loads(line)["url"])
        time.sleep(0.05)
    raise RuntimeError(f"the API did not start; it said:\n{log.read_text()}")
