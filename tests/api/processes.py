"""A real API process: started, found by its log line, stopped or killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 20


@dataclass
class ApiProcess:
    """A running process; ``lines`` are the log events read so far."""

    process: subprocess.Popen[str]
    url: str
    lines: list[dict[str, object]]

    def stop(self, signal_number: int) -> tuple[int, str]:
        """Send a signal; return the exit status and what stood on stdout."""
        self.process.send_signal(signal_number)
        out, err = self.process.communicate(timeout=STOP_SECONDS)
        self.lines += [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        return self.process.returncode, out


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Embedded backends under ``folder`` and a free port; ``settings`` without their prefix."""
    outside = os.environ.items()  # noqa: TID251 - a child's environment begins with ours
    clean = {name: value for name, value in outside if not name.startswith("DARKROOM_")}
    named = {
        "QUEUE_URL": f"sqlite:///{folder}/queue.db",
        "JOBSTORE_URL": f"sqlite:///{folder}/jobs.db",
        "IMAGESTORE_URL": f"file:///{folder}/images",
        "API_PORT": "0",
        **settings,
    }
    return clean | {f"DARKROOM_{name}": value for name, value in named.items()}


@contextmanager
def api_process(
    folder: Path, command: Sequence[str] = ("-m", "api"), **settings: str
) -> Iterator[ApiProcess]:
    """Run ``python COMMAND`` until the block ends; wait until it says where it listens."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(folder, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that what it forked ends with it
    )
    try:
        yield _listening(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _listening(process: subprocess.Popen[str]) -> ApiProcess:
    return ApiProcess(process, next_url(process), [])


def next_url(process: subprocess.Popen[str]) -> str:
    """Read the log until a server says where it listens."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("{") and (event := json.loads(line))["event"] == "listening":
            return str(event["url"])
    raise AssertionError(f"the API ended before it listened: {''.join(said)}")
