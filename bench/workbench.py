"""What the benches of the worker share: the same jobs through the platform, the bare pipeline, and
a naive loop, in one process on one engine's device."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry

from darkroom.catalog import Catalog, Model, Pool
from darkroom.clock import SystemClock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.generation import Generation
from darkroom.imagestores.base import output_name
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.jobs import Job, JobImage, Provenance, Usage, claim, new_job_id, succeed
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.messages import decode, message_for
from darkroom.metrics import WorkerMetrics
from darkroom.queues import sqlite as sqlite_queues
from darkroom.settings import DarkroomSettings
from darkroom.sqlite import Database
from darkroom.wiring import Backends
from worker import png
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.base import GenerationTask, OnStep
from worker.engines.diffusers import DiffusersEngine
from worker.engines.diffusers_pipelines import load_pipeline
from worker.models import locate, locate_lora
from worker.settings import WorkerSettings
from worker.wiring import build_worker

PROMPTS = ("a blue square on a yellow background", "a red circle", "a green star at night")


@dataclass
class Call:
    """One pipeline call: which seeds, and when, in seconds of one clock."""

    seeds: list[int]
    began: float
    ended: float


class TimedEngine(DiffusersEngine):
    """The real engine, which notes its calls."""

    def __init__(self, catalog: Catalog, threads: int) -> None:
        super().__init__("auto", partial(locate_lora, catalog=catalog), threads)
        self.calls: list[Call] = []

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> Any:
        """Make the pictures, and note when."""
        began = time.perf_counter()
        pictures = super().generate(batch, on_step)
        seeds = [seed for task in batch for seed in task.seeds]
        self.calls.append(Call(seeds, began, time.perf_counter()))
        return pictures


class CountingQueue(sqlite_queues.SqliteJobQueue):
    """A queue that tells when the last of ``left`` messages was completed."""

    left = 0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.emptied = asyncio.Event()

    async def settle(self, change: str, values: tuple[object, ...], lease: Any) -> None:
        """Settle, and count."""
        await super().settle(change, values, lease)
        self.left -= change.startswith("DELETE")
        if self.left == 0:
            self.emptied.set()


@dataclass
class Round:
    """What one way of doing the jobs took. Seconds; ``in_calls`` is spent in pipeline calls.

    ``cpu`` is the whole process's processor time, which what else the machine does hardly moves.
    """

    seconds: float
    in_calls: float
    cpu: float
    sizes: list[int] = field(default_factory=list)


Rounds = dict[str, list[Round]]
"""What each way of doing the jobs took, round by round."""


def ratio(taken: Rounds, name: str, other: str, what: str = "seconds") -> float:
    """Return how many times as fast as ``other`` way ``name`` is: the median over the rounds.

    ``what`` is ``seconds`` of wall time or ``cpu`` for those of the processor.
    """
    pairs = zip(taken[name], taken[other], strict=True)
    return statistics.median(getattr(two, what) / getattr(one, what) for one, two in pairs)


class Workbench:
    """One model, one pool, one engine; backends in ``folder``."""

    def __init__(self, catalog: Catalog, steps: int, threads: int, folder: Path) -> None:
        self.catalog = catalog
        self.model: Model = catalog.model(catalog.default_model)
        self.steps = steps
        self.engine = TimedEngine(catalog, threads)
        self.device = torch.device(self.engine.describe().device.split(" ")[0])
        self.thread = EngineThread(self.engine)
        self.pipeline = load_pipeline(self.model, locate(self.model, catalog), self.device)
        self._folder = folder
        self._rounds = 0

    def asked(self, seed: int) -> Generation:
        """The job of that seed."""
        usual = self.model.defaults
        return Generation(
            model=self.model.name,
            prompt=PROMPTS[seed % len(PROMPTS)],
            negative_prompt="",
            width=usual.width,
            height=usual.height,
            num_inference_steps=self.steps,
            guidance_scale=usual.guidance_scale,
            num_images=1,
            seed=seed,
            scheduler=self.model.scheduler,
        )

    async def warm(self) -> None:
        """Load the model and choose kernels, on both sides."""
        await self.thread.load(self.model, locate(self.model, self.catalog))
        self.bare([[0]])
        task = GenerationTask(self.asked(0))
        await self.thread.submit(lambda: self.engine.generate([task], lambda *step: None))
        self.engine.calls.clear()

    def bare(self, batches: Sequence[Sequence[int]]) -> Round:
        """Nothing but the pipeline's calls, on these batches of seeds."""
        in_calls, worked, started = 0.0, time.process_time(), time.perf_counter()
        for seeds in batches:
            began = time.perf_counter()
            asked = [self.asked(seed) for seed in seeds]
            with torch.inference_mode():
                self.pipeline(
                    prompt=[one.prompt for one in asked],
                    negative_prompt=[one.negative_prompt for one in asked],
                    width=asked[0].width,
                    height=asked[0].height,
                    num_inference_steps=self.steps,
                    guidance_scale=asked[0].guidance_scale,
                    generator=[torch.Generator("cpu").manual_seed(one.seed) for one in asked],
                )
            in_calls += time.perf_counter() - began
        seconds = time.perf_counter() - started
        cpu = time.process_time() - worked
        return Round(seconds, in_calls, cpu, [len(seeds) for seeds in batches])

    async def platform(self, jobs: int, batch: int) -> tuple[Round, list[list[int]]]:
        """The real worker on a backlog of ``jobs``, ``batch`` at once; also return its batches.

        From the beginning of the first call to the settling of the last message.
        """
        backends, pool = self._backends(), self.pool(batch)
        queue = backends.queues[pool.name]
        assert isinstance(queue, CountingQueue)
        queue.left = jobs
        await self._fill(backends, pool, jobs)
        drain, self.engine.calls = Drain(600), []
        worker = build_worker(
            DarkroomSettings(),
            WorkerSettings(),
            self.catalog,
            pool,
            backends,
            self.thread,
            drain,
            WorkerMetrics(CollectorRegistry()),
        )
        worked = time.process_time()
        running = asyncio.create_task(worker.run())
        await queue.emptied.wait()
        ended, calls, cpu = time.perf_counter(), self.engine.calls, time.process_time() - worked
        drain.begin("done")
        await running
        await backends.close()
        in_calls = sum(call.ended - call.began for call in calls)
        batches = [call.seeds for call in calls]
        sizes = [len(one) for one in batches]
        return Round(ended - calls[0].began, in_calls, cpu, sizes), batches

    async def naive(self, jobs: int) -> Round:
        """One job after the other: lease, claim, generate, encode, upload, finish, settle."""
        backends, pool = self._backends(), self.pool(1)
        await self._fill(backends, pool, jobs)
        queue, self.engine.calls = backends.queues[pool.name], []
        worked, started = time.process_time(), time.perf_counter()
        for _ in range(jobs):
            (lease,) = await queue.lease(1, 1)
            await self._one_naively(backends, decode(lease.body).job_id)
            await lease.complete()
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
        await backends.close()
        in_calls = sum(call.ended - call.began for call in self.engine.calls)
        return Round(seconds, in_calls, cpu, [1] * jobs)

    async def _one_naively(self, backends: Backends, job_id: str) -> None:
        now = SystemClock().now
        job = await backends.jobs.get(job_id)
        job = await backends.jobs.compare_and_set(claim(job, now(), 60), job.version)
        task = GenerationTask(job.generation)
        ((picture,),) = self.engine.generate([task], lambda *step: None)
        file = png.encode(picture, job.generation, 0, self.model.revision)
        await backends.images.put(job.id, output_name(0), file, attempt=1)
        sides = {"width": picture.width, "height": picture.height}
        image = JobImage(index=0, sha256="", seed=job.generation.seed, **sides)
        ended = succeed(job, 1, now(), images=[image], usage=Usage(), provenance=Provenance())
        await backends.jobs.compare_and_set(ended, job.version)

    def pool(self, batch: int) -> Pool:
        """The pool, with workers that run ``batch`` jobs at once."""
        return self.catalog.pools[0].model_copy(update={"concurrency": batch})

    def _backends(self) -> Backends:
        self._rounds += 1
        folder = self._folder / str(self._rounds)
        folder.mkdir()
        return open_in(folder, self.catalog.pools[0].name)

    async def _fill(self, backends: Backends, pool: Pool, jobs: int) -> None:
        """Put a backlog in the queue."""
        await fill(backends, pool, self.catalog, [self.asked(seed) for seed in range(jobs)])


def open_in(folder: Path, pool: str) -> Backends:
    """Open SQLite and files in ``folder``, with a queue that counts what is completed."""
    queue = CountingQueue(
        Database(folder / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable),
        pool,
        lease_seconds=60,
        max_delivery_count=6,
    )
    jobs = sqlite_jobs.SqliteJobStore(
        Database(folder / "jobs.db", sqlite_jobs.SCHEMA, StoreUnavailable)
    )
    return Backends({pool: queue}, jobs, FilesystemImageStore(folder / "images"))


async def fill(
    backends: Backends, pool: Pool, catalog: Catalog, jobs: Sequence[Generation]
) -> None:
    """Admit and enqueue ``jobs``."""
    for asked in jobs:
        now = SystemClock().now()
        job = Job(
            id=new_job_id("bench", "bench"),
            tenant="bench",
            pool=pool.name,
            generation=asked,
            estimated_gpu_seconds=catalog.model(asked.model).gpu_seconds(asked),
            created_at=now,
            updated_at=now,
        )
        await backends.jobs.create(job)
        await backends.queues[pool.name].send(message_for(job))
