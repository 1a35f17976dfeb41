"""The servers that are measured, each a process of its own: ours, a bare one, one on Celery."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
CELERY = ROOT / ".tools" / "celery"
CELERY_PACKAGES = ("celery[redis]>=5.6,<6",)
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    process: psutil.Process

    @property
    def resident_bytes(self) -> int:
        """Memory that the process holds."""
        return int(self.process.memory_info().rss)

    @property
    def processor_seconds(self) -> float:
        """Processor time of all its threads so far, to the nanosecond: Linux's sched-stats."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def raise_file_limit(least: int) -> None:
    """Let this process and its children open files. Raises `OSError` if ``least`` are too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = least if hard == resource.RLIM_INFINITY else min(least, hard)
    if wanted < least:
        raise OSError(f"{least:,} open files are needed, and {hard:,} may be: raise ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[Server]:
    """Serve the real API on the embedded backends, as `python -m api` does."""
    port = free_port()
    named = {
        "DARKROOM_QUEUE_URL": f"sqlite:///{folder}/queue.db",
        "DARKROOM_JOBSTORE_URL": f"sqlite:///{folder}/jobs.db",
        "DARKROOM_IMAGESTORE_URL": f"file:///{folder}/images",
        "DARKROOM_API_PORT": str(port),
    }
    with _serving([sys.executable, "-m", "api"], port, folder / "api.log", named) as server:
        yield server


@contextlib.contextmanager
def bare(folder: Path) -> Iterator[Server]:
    """Serve an endpoint that checks the same body and does nothing with it."""
    port = free_port()
    command = [sys.executable, "-m", "bench.api_bare", str(port)]
    with _serving(command, port, folder / "bare.log") as server:
        yield server


@contextlib.contextmanager
def on_celery(folder: Path) -> Iterator[Server]:
    """Serve an endpoint that checks the same body and calls ``task.delay``; Redis runs beside it.

    Redis keeps nothing on disk, and the answerer talks to it over a socket file: its best case.
    """
    port = free_port()
    path = folder / "redis.sock"
    command = [str(celery_python()), "-m", "bench.api_celery", str(port), str(path)]
    with _redis(path, folder), _serving(command, port, folder / "celery.log") as server:
        yield server


def celery_python() -> Path:
    """Return a Python that has Celery beside our packages; made at the first call, by pip."""
    python = CELERY / "bin" / "python"
    stamp = CELERY / ".complete"
    if not stamp.exists():
        venv.create(CELERY, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *CELERY_PACKAGES], check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        beside = CELERY / "lib" / version / "site-packages" / "ours.pth"
        beside.write_text(sysconfig.get_path("purelib") + "\n")
        stamp.touch()
    return python


def has_redis() -> bool:
    """Whether there is a redis-server to start."""
    return shutil.which("redis-server") is not None


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _redis(path: Path, folder: Path) -> Iterator[None]:
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            _until(path.exists, process, folder / "redis.log")
            yield
        finally:
            _stop(process)


@contextlib.contextmanager
def _serving(
    command: Sequence[str], port: int, log_path: Path, named: Mapping[str, str] | None = None
) -> Iterator[Server]:
    outside = os.environ.items()  # noqa: TID251 - a child's environment begins with ours
    clean = {name: value for name, value in outside if not name.startswith("DARKROOM_")}
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=clean | dict(named or {}), stdout=log, stderr=log
        )
        try:
            _until(lambda: _listens(port), process, log_path)
            yield Server(port, psutil.Process(process.pid))
        finally:
            _stop(process)


def _until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log_path: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"a server did not start: {log_path.read_text()[-2000:]}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
