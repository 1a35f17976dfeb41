"""The worker's own time per job, beside the raw pipeline call.

    python -m bench.overhead [--jobs 12] [--steps 20] [--catalog FILE]

The same prompts, seeds and parameters run (a) through the bare pipeline and (b) through the real
loop on SQLite and files, in one process, alternating job by job, so that what else the machine does
falls on both alike. Prints a table and, as its last line, one JSON object.
"""

import argparse
import asyncio
import io
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from prometheus_client import CollectorRegistry

from darkroom.catalog import Catalog, Model, load_catalog
from darkroom.clock import SystemClock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.generation import Generation
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.jobs import Job, new_job_id
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.log import configure
from darkroom.messages import message_for
from darkroom.metrics import WorkerMetrics
from darkroom.queues import sqlite as sqlite_queues
from darkroom.settings import DEFAULT_CATALOG, DarkroomSettings
from darkroom.sqlite import Database
from darkroom.wiring import Backends
from worker import png
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.diffusers import DiffusersEngine
from worker.engines.diffusers_pipelines import load_pipeline
from worker.models import locate, locate_lora
from worker.settings import WorkerSettings, restrain_libraries
from worker.wiring import build_worker

PROMPTS = ("a blue square on a yellow background", "a red circle", "a green star at night")


PURPOSES = {"loading": "claim", "generating": "progress", "storing": "fence", "done": "finish"}
"""What a write of a record is for, by the phase that it writes."""


class Stopwatch:
    """Adds up milliseconds by name."""

    def __init__(self) -> None:
        self.milliseconds: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, started: float) -> None:
        self.milliseconds[name] += (time.perf_counter() - started) * 1000


class TimedJobs(sqlite_jobs.SqliteJobStore):
    """Job records whose calls are timed, by what they are for."""

    watch: Stopwatch

    async def get(self, job_id: str) -> Job:
        started = time.perf_counter()
        job = await super().get(job_id)
        self.watch.add("claim" if job.phase == "queued" else "cancel_check", started)
        return job

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        started = time.perf_counter()
        written = await super().compare_and_set(job, expected_version)
        self.watch.add(PURPOSES[job.phase], started)
        return written


class TimedImages(FilesystemImageStore):
    """Pictures whose storing is timed."""

    watch: Stopwatch

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        started = time.perf_counter()
        await super().put(job_id, name, png, attempt=attempt)
        self.watch.add("store", started)


class TimedQueue(sqlite_queues.SqliteJobQueue):
    """A queue that tells when a message was completed, and how long that took."""

    watch: Stopwatch
    completed: asyncio.Event

    async def settle(self, change: str, values: tuple[object, ...], lease: Any) -> None:
        started = time.perf_counter()
        await super().settle(change, values, lease)
        self.watch.add("settle", started)
        if change.startswith("DELETE"):
            self.completed.set()


def open_timed(folder: Path, pool: str, watch: Stopwatch) -> tuple[TimedQueue, Backends]:
    """Open backends in ``folder`` whose calls ``watch`` times."""
    queue = TimedQueue(
        Database(folder / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable),
        pool,
        lease_seconds=60,
        max_delivery_count=5,
    )
    jobs = TimedJobs(Database(folder / "jobs.db", sqlite_jobs.SCHEMA, StoreUnavailable))
    images = TimedImages(folder / "images")
    queue.watch = jobs.watch = images.watch = watch
    queue.completed = asyncio.Event()
    return queue, Backends(queues={pool: queue}, jobs=jobs, images=images)


def asked_for(model: Model, number: int, steps: int) -> Generation:
    """The job of that number."""
    return Generation(
        model=model.name,
        prompt=PROMPTS[number % len(PROMPTS)],
        negative_prompt="",
        width=model.defaults.width,
        height=model.defaults.height,
        num_inference_steps=steps,
        guidance_scale=model.defaults.guidance_scale,
        num_images=1,
        seed=number,
        scheduler=model.scheduler,
    )


def bare_call(pipeline: Any, asked: Generation) -> None:
    """The raw pipeline call."""
    with torch.inference_mode():
        pipeline(
            prompt=[asked.prompt],
            width=asked.width,
            height=asked.height,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(asked.seed)],
        )


@dataclass
class Runs:
    """What each job took, in milliseconds of wall and of processor time."""

    bare_ms: list[float] = field(default_factory=list)
    bare_cpu_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    whole_cpu_ms: list[float] = field(default_factory=list)
    inside_ms: list[float] = field(default_factory=list)
    png_ms: list[float] = field(default_factory=list)

    def bare(self, pipeline: Any, asked: Generation) -> None:
        """Make and time one raw call."""
        started, worked = time.perf_counter(), time.process_time()
        bare_call(pipeline, asked)
        self.bare_ms.append((time.perf_counter() - started) * 1000)
        self.bare_cpu_ms.append((time.process_time() - worked) * 1000)


async def platform_call(queue: TimedQueue, backends: Backends, pool: str, asked: Generation) -> Job:
    """Run one job through the worker; return its record once its message is gone."""
    now = SystemClock().now()
    job = Job(
        id=new_job_id("bench", "bench"),
        tenant="bench",
        pool=pool,
        generation=asked,
        created_at=now,
        updated_at=now,
    )
    created = await backends.jobs.create(job)
    queue.completed.clear()
    await queue.send(message_for(created.job))
    await queue.completed.wait()
    return await backends.jobs.get(job.id)


async def measure(catalog: Catalog, jobs: int, steps: int, folder: Path) -> dict[str, float]:
    """Alternate bare and platform runs; return milliseconds per job and their ratio."""
    model, pool = catalog.model(catalog.default_model), catalog.pools[0]
    watch = Stopwatch()
    queue, backends = open_timed(folder, pool.name, watch)
    engine = DiffusersEngine("auto", partial(locate_lora, catalog=catalog))
    pipeline = load_pipeline(model, locate(model, catalog), torch.device(engine.describe().device))
    drain = Drain(60)
    worker = build_worker(
        DarkroomSettings(),
        WorkerSettings(),
        catalog,
        pool,
        backends,
        EngineThread(engine),
        drain,
        WorkerMetrics(CollectorRegistry()),
    )
    running = asyncio.create_task(worker.run())
    for number in range(2):  # the first calls load the model and warm the kernels
        bare_call(pipeline, asked_for(model, number, steps))
        await platform_call(queue, backends, pool.name, asked_for(model, number, steps))
    watch.milliseconds.clear()
    runs = Runs()
    for number in range(jobs):
        asked = asked_for(model, number, steps)
        if number % 2:
            runs.bare(pipeline, asked)
        started, worked = time.perf_counter(), time.process_time()
        job = await platform_call(queue, backends, pool.name, asked)
        runs.whole_ms.append((time.perf_counter() - started) * 1000)
        runs.whole_cpu_ms.append((time.process_time() - worked) * 1000)
        if not number % 2:
            runs.bare(pipeline, asked)
        runs.inside_ms.append(job.usage.gpu_seconds * 1000)
        runs.png_ms.append(await encode_again(backends, job))
    drain.begin("done")
    await running
    await backends.close()
    return summary(runs, watch)


async def encode_again(backends: Backends, job: Job) -> float:
    """Milliseconds to write the job's picture as a PNG file."""
    picture = Image.open(io.BytesIO(await backends.images.get(job.id, "0.png"))).copy()
    started = time.perf_counter()
    png.encode(picture, job.generation, 0, "1")
    return (time.perf_counter() - started) * 1000


def summary(runs: Runs, watch: Stopwatch) -> dict[str, float]:
    """Ratios to the bare call, then milliseconds per job: medians, and means of the single calls.

    ``cpu_ratio`` compares processor time, which what else the machine does hardly moves.
    """
    own = [whole - inside for whole, inside in zip(runs.whole_ms, runs.inside_ms, strict=True)]
    jobs = len(own)
    return {
        "overhead_ratio": paired(runs.whole_ms, runs.bare_ms),
        "cpu_ratio": paired(runs.whole_cpu_ms, runs.bare_cpu_ms),
        "own_time_ratio": paired(own, runs.bare_ms),
        "pipeline_call_ratio": paired(runs.inside_ms, runs.bare_ms),
        "bare_ms": statistics.median(runs.bare_ms),
        "platform_ms": statistics.median(runs.whole_ms),
        "own_ms": statistics.median(own),
        "png_ms": statistics.median(runs.png_ms),
        **{f"{name}_ms": total / jobs for name, total in watch.milliseconds.items()},
    }


def paired(measured: list[float], bare: list[float]) -> float:
    """The median over jobs of a time as a share of the bare call of the same job."""
    return statistics.median(one / other for one, other in zip(measured, bare, strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--catalog", type=Path, default=DEFAULT_CATALOG)
    given = parser.parse_args()
    restrain_libraries()
    configure("error", "console", "bench")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        catalog = load_catalog(given.catalog)
        result = asyncio.run(measure(catalog, given.jobs, given.steps, Path(folder)))
    print(f"{given.jobs} jobs of {given.steps} steps; milliseconds are per job\n")
    for name, value in result.items():
        print(f"{name:<22}{value:>10.3f}")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
