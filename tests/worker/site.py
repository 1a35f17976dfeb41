"""A small Darkroom for one test: a queue, both stores, and workers with the fake engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image
from prometheus_client import CollectorRegistry

from darkroom.catalog import Catalog, Pool
from darkroom.clock import Clock, SystemClock
from darkroom.errors import ImageNotFound, VersionConflict
from darkroom.imagestores.base import ImageStore, output_name
from darkroom.jobs import Job, request_cancel
from darkroom.jobstores.base import JobStore
from darkroom.messages import message_for
from darkroom.metrics import WorkerMetrics
from darkroom.queues.base import JobQueue
from tests.samples import make_generation, make_job
from worker.backoff import Backoff
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.base import Engine, OnStep, Preview
from worker.engines.fake import FakeEngine
from worker.failures import Failures
from worker.loop import LoopPace, Worker
from worker.watch import WatchPace
from worker.workplace import Workplace

POOL = "short"
MAX_DELIVERIES = 3
EAGER = WatchPace(progress_seconds=1.0, cancel_check_seconds=0.0)
AT_ONCE = Backoff(base_seconds=0.0, cap_seconds=0.0)

CATALOG = f"""
version: 1
default_model: demo
models:
  - name: demo
    source: weights
    revision: "1"
    dtype: float32
    scheduler: DDIMScheduler
    seconds_per_megapixel_step: 0.1
    licence: MIT
pools:
  - name: {POOL}
    models: [demo]
    max_gpu_seconds: MAX_GPU_SECONDS
    concurrency: CONCURRENCY
    price_per_hour_usd: 3.6
"""


def write_catalog(folder: Path, max_gpu_seconds: float = 60, concurrency: int = 1) -> Path:
    """Write a catalog whose model has an empty folder: enough for the fake engine."""
    (folder / "weights").mkdir(exist_ok=True)
    path = folder / "catalog.yaml"
    text = CATALOG.replace("MAX_GPU_SECONDS", str(max_gpu_seconds))
    path.write_text(text.replace("CONCURRENCY", str(concurrency)))
    return path


async def eventually(
    condition: Callable[[], Awaitable[bool]], seconds: float = 10.0, every: float = 0.01
) -> None:
    """Return once ``condition`` holds; fail after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(every)


class CountingEngine(FakeEngine):
    """A fake engine that tells which step it has reached; ``at_step`` runs on its thread."""

    def __init__(self, step_seconds: float = 0.0, **hooks: Any) -> None:
        self.at_step: Callable[[int], None] = hooks.pop("at_step", lambda step: None)
        super().__init__(step_seconds, **hooks)
        self.steps = 0

    def generate(self, batch: Any, on_step: OnStep) -> list[list[Image]]:
        def counted(step: int, total: int, preview: Preview) -> None:
            self.steps += 1
            self.at_step(step)
            on_step(step, total, preview)

        return super().generate(batch, counted)


@dataclass
class Running:
    """A worker that runs beside the test."""

    drain: Drain
    task: asyncio.Task[None]


@dataclass
class Site:
    """Backends and what workers on them share."""

    queue: JobQueue
    jobs: JobStore
    images: ImageStore
    catalog: Catalog
    clock: Clock = field(default_factory=SystemClock)
    pace: WatchPace = EAGER
    backoff: Backoff = AT_ONCE
    renew_seconds: float = 0.5
    claim_seconds: float = 3.0
    metrics: WorkerMetrics = field(default_factory=lambda: WorkerMetrics(CollectorRegistry()))

    @property
    def pool(self) -> Pool:
        return self.catalog.pool(POOL)

    def changed(self, **fields: Any) -> "Site":
        return replace(self, **fields)

    async def create(self, job: Job | None = None, **asked: Any) -> Job:
        """Store a record, without a message."""
        now = self.clock.now()
        small = {"width": 64, "height": 64, "num_inference_steps": 4, **asked}
        fresh = make_job(
            pool=POOL, generation=make_generation(**small), created_at=now, updated_at=now
        )
        return (await self.jobs.create(job or fresh)).job

    async def submit(self, **asked: Any) -> str:
        """Admit and enqueue a job; return its id."""
        job = await self.create(**asked)
        await self.queue.send(message_for(job))
        return job.id

    async def send(self, job: Job) -> None:
        """Enqueue a record's message."""
        await self.queue.send(message_for(job))

    async def write(self, job_id: str, step: Callable[[Job], Job]) -> Job:
        """Change a record as another process would."""
        while True:
            job = await self.jobs.get(job_id)
            try:
                return await self.jobs.compare_and_set(step(job), job.version)
            except VersionConflict:
                continue

    async def cancel(self, job_id: str) -> Job:
        """Ask for a cancel, as the API does."""
        return await self.write(job_id, lambda job: request_cancel(job, self.clock.now()))

    async def ended(self, job_id: str, seconds: float = 10.0) -> Job:
        """Wait until the job is terminal and return it."""

        async def over() -> bool:
            return (await self.jobs.get(job_id)).status.is_terminal

        await eventually(over, seconds)
        return await self.jobs.get(job_id)

    async def settled(self, seconds: float = 10.0) -> None:
        """Wait until no message waits or is held."""

        async def empty() -> bool:
            return (await self.queue.depth()).active == 0

        await eventually(empty, seconds)

    async def has_image(self, job_id: str) -> bool:
        try:
            await self.images.get(job_id, output_name(0))
        except ImageNotFound:
            return False
        return True

    def build(self, engine: Engine, drain: Drain) -> Worker:
        failures = Failures(self.jobs, self.clock, self.backoff, self.metrics, self.pool)
        place = Workplace(
            catalog=self.catalog,
            pool=self.pool,
            jobs=self.jobs,
            images=self.images,
            engine=EngineThread(engine),
            clock=self.clock,
            metrics=self.metrics,
            pace=self.pace,
            claim_seconds=self.claim_seconds,
        )
        pace = LoopPace(0.2, self.renew_seconds, MAX_DELIVERIES, look_seconds=0.2)
        return Worker(self.queue, place, failures, drain, pace)

    @asynccontextmanager
    async def worker(
        self, engine: Engine | None = None, grace_seconds: float = 10.0
    ) -> AsyncIterator[Running]:
        """Run a worker while the block runs, then drain it."""
        drain = Drain(grace_seconds)
        worker = self.build(engine or FakeEngine(), drain)
        task = asyncio.create_task(worker.run())
        try:
            yield Running(drain, task)
        finally:
            drain.begin("test over")
            await task

    def returned(self, disposition: str, code: str) -> float:
        """How many messages were given back or set aside so."""
        labels = {"pool": POOL, "disposition": disposition, "code": code}
        name = "darkroom_deliveries_returned_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0
