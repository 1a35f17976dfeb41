"""From the start of a worker's process to `ready`, beside a bare script with the same pipeline.

    python -m bench.cold_start [--rounds 7] [--catalog FILE]

(a) is a script that imports torch and diffusers and loads the catalog's default model, with the
same dtype, onto the same device; (b) is `python -m worker`, on SQLite and files, until its log says
that it leases, with that model warm. A third, (c), only imports what a worker needs before torch:
the most that the platform's own code can cost. They run alternately, so that what else the machine
does falls on all alike; the first round, which fills the page cache, does not count. Processor time
is taken at the same moment as wall time: a busy machine moves it less. Prints a table and, as its
last line, one JSON object.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from darkroom.catalog import Catalog, load_catalog
from darkroom.settings import DEFAULT_CATALOG
from worker.models import locate

ROOT = Path(__file__).resolve().parents[1]
READY = '"event": "ready"'
BARE = """
import sys
import torch
from diffusers import DiffusionPipeline
device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = getattr(torch, sys.argv[2]) if device == "cuda" else torch.float32
pipeline = DiffusionPipeline.from_pretrained(
    sys.argv[1], dtype=dtype, use_safetensors=True, local_files_only=True
).to(device)
print('"event": "ready"', flush=True)
sys.stdin.read()
"""
IMPORTS = """
import sys
import worker.wiring, worker.engine_thread
print('"event": "ready"', flush=True)
sys.stdin.read()
"""
Seconds = tuple[float, float]
"""Of wall and of processor time."""


def to_ready(command: Sequence[str], environment: Mapping[str, str]) -> Seconds:
    """Start a process, wait for its line, end it; return what the line took to come."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if READY in line:
                wall, cpu = time.perf_counter() - started, cpu_seconds(process.pid)
                process.send_signal(signal.SIGTERM)
                process.communicate()
                return wall, cpu
    raise SystemExit("a process ended before it was ready:\n" + "".join(said))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and system mode (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contenders(catalog: Catalog, file: Path, folder: Path) -> dict[str, Callable[[], Seconds]]:
    """What is compared, by name."""
    model = catalog.model(catalog.default_model)
    pool = next(pool for pool in catalog.pools if model.name in pool.models)
    clean = {name: text for name, text in os.environ.items() if not name.startswith("DARKROOM_")}  # noqa: TID251
    clean |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    worker = clean | {
        "DARKROOM_CATALOG": str(file),
        "DARKROOM_QUEUE_URL": f"sqlite:///{folder / 'queue.db'}",
        "DARKROOM_JOBSTORE_URL": f"sqlite:///{folder / 'jobs.db'}",
        "DARKROOM_IMAGESTORE_URL": f"file:///{folder / 'images'}",
        "DARKROOM_WORKER_POOL": pool.name,
        "DARKROOM_WORKER_POLL_SECONDS": "0.1",
    }
    weights = str(locate(model, catalog))
    return {
        "bare": lambda: to_ready(["-c", BARE, weights, model.dtype], clean),
        "worker": lambda: to_ready(["-m", "worker"], worker),
        "imports": lambda: to_ready(["-c", IMPORTS], clean),
    }


def measure(rounds: int, file: Path) -> dict[str, float]:
    """Run all alternately; return medians in seconds, and the ratio of (b)'s to (a)'s."""
    taken: dict[str, list[Seconds]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = contenders(load_catalog(file), file.resolve(), Path(folder))
        for number in range(rounds + 1):
            order = list(runs) if number % 2 else list(reversed(runs))
            for name in order:
                seconds = runs[name]()
                if number:
                    taken.setdefault(name, []).append(seconds)
    found: dict[str, float] = {"rounds": rounds}
    for name in runs:
        for index, kind in enumerate(("seconds", "cpu_seconds")):
            found[f"{name}_{kind}"] = statistics.median(one[index] for one in taken[name])
    found["ratio"] = found["worker_seconds"] / found["bare_seconds"]
    found["cpu_ratio"] = found["worker_cpu_seconds"] / found["bare_cpu_seconds"]
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--catalog", type=Path, default=DEFAULT_CATALOG)
    given = parser.parse_args()
    found = measure(given.rounds, given.catalog)
    names = {"bare": "bare script", "worker": "worker to ready", "imports": "own imports alone"}
    print(f"{'seconds, median':<20}{'wall':>8}{'processor':>12}")
    for name, title in names.items():
        print(f"{title:<20}{found[f'{name}_seconds']:>8.2f}{found[f'{name}_cpu_seconds']:>12.2f}")
    print(f"{'worker / bare':<20}{found['ratio']:>8.2f}{found['cpu_ratio']:>12.2f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
