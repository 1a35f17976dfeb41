"""A real `darkroom up` on a free port, with the engine that needs no weights."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CATALOG = """
version: 1
default_model: tiny
models:
  - name: tiny
    title: A model of the tests
    source: weights
    revision: "1"
    kinds: [text_to_image, image_to_image, inpainting]
    dtype: float32
    defaults: {width: 64, height: 64, num_inference_steps: 4, guidance_scale: 4.0}
    limits: {max_side: 256}
    seconds_per_megapixel_step: 0.1
    load_seconds: 0
    licence: MIT
pools:
  - {name: local, models: [tiny], max_gpu_seconds: 60}
"""
START_SECONDS = 60


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anybody's Darkroom settings, plus ``variables``."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("DARKROOM_")}  # noqa: TID251
    return {**ours, "PYTHONPATH": str(ROOT), **variables}


def darkroom(
    *words: str, url: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    if url is not None:
        variables["DARKROOM_URL"] = url
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
    )


def here(*words: str) -> subprocess.CompletedProcess[str]:
    """Run one command in this process to its end."""
    output, errors = io.StringIO(), io.StringIO()
    status: int | str | None = 0
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            main(words)
        except SystemExit as ended:
            status = ended.code
    return subprocess.CompletedProcess(
        words, int(status or 0), output.getvalue(), errors.getvalue()
    )


@dataclass
class Up:
    """A running `darkroom up`."""

    process: subprocess.Popen[str]
    url: str = ""
    said: list[str] = field(default_factory=list)

    def darkroom(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command against this server; in this process, which saves half a second."""
        return here(*words, "--url", self.url)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait_until_it_says(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return
        raise AssertionError(f"up never said {words!r}:\n{''.join(self.said)}")

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the rest of the output."""
        output, _ = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode, output


def gone(processes: Sequence[psutil.Process]) -> bool:
    """Whether every process has ended, reaped or not."""
    _, alive = psutil.wait_procs(processes, timeout=0)
    return all(one.status() == psutil.STATUS_ZOMBIE for one in alive if one.is_running())


@contextmanager
def running_up(
    folder: Path, *options: str, step_seconds: float = 0.0, **variables: str
) -> Iterator[Up]:
    """Start `darkroom up` in ``folder`` and give it back once it is ready; leave nothing behind."""
    (folder / "weights").mkdir(exist_ok=True)
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG)
    where = ["--data-dir", str(folder / "data"), "--catalog", str(catalog)]
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "up", "--port", "0", *where, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(
            DARKROOM_WORKER_ENGINE="fake",
            DARKROOM_WORKER_FAKE_STEP_SECONDS=str(step_seconds),
            DARKROOM_WORKER_POLL_SECONDS="0.5",
            **variables,
        ),
    )
    up = Up(process)
    children: list[psutil.Process] = []
    try:
        up.wait_until_it_says(" ready at ")
        up.url = up.said[-1].split(" ready at ")[1].split("/ ")[0]
        children = up.children()
        yield up
    finally:
        for one in [process, *children]:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait(timeout=START_SECONDS)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `up` for the commands' tests; its denoising steps take 20 ms."""
    with running_up(tmp_path_factory.mktemp("up"), step_seconds=0.02) as up:
        yield up
