"""Several workers under faults drawn at random: whatever happens, each job has one right end."""

import asyncio
import gc
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest

from darkroom.errors import DeviceLost, OutOfMemory, QueueUnavailable, StoreUnavailable
from darkroom.jobs import Job, JobState
from darkroom.jobstores.base import JobStore
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues.base import Lease
from darkroom.queues.memory import MemoryJobQueue
from tests.samples import make_generation, make_job
from tests.worker.batching import held
from tests.worker.site import POOL, Site, eventually
from tests.worker.test_batches import has_its_pictures
from worker.drain import Drain
from worker.engines.base import GenerationTask
from worker.engines.fake import FakeEngine

JOBS = 90
WORKERS = 3
MODELS = ("red", "green", "blue")
TENANTS = ("acme", "globex", "initech")
CODES = {"GenerationFailed", "OutOfMemory", "DeviceLost", "DeadlineExceeded"}


class FaultyEngine(FakeEngine):
    """Noise with a share of the errors that pipelines raise."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(0.002, fail=self._generating, fail_load=self._loading)
        self._dice = dice

    def _loading(self, model: Any) -> None:
        if self._dice.random() < 0.05:
            raise OutOfMemory("no room for the model")

    def _generating(self, batch: Sequence[GenerationTask]) -> None:
        fate = self._dice.random()
        if fate < 0.10 and sum(len(task.seeds) for task in batch) > 1:
            raise OutOfMemory("no room for so many")
        if fate < 0.15:
            raise ValueError("the pipeline does not like this")
        if fate < 0.17:
            raise DeviceLost("the GPU failed")


def note_ends(jobs: JobStore) -> dict[str, set[tuple[Any, ...]]]:
    """Note, from now on, every end that jobs of ``jobs`` are given: its state and its moment."""
    ends: dict[str, set[tuple[Any, ...]]] = {}
    write = jobs.compare_and_set

    async def noting(job: Job, expected_version: Any) -> Job:
        try:
            return await write(job, expected_version)
        finally:  # an answer may be lost
            now = await jobs.get(job.id)
            if now.status.is_terminal:
                ends.setdefault(job.id, set()).add((now.status, now.finished_at, now.attempts))

    jobs.compare_and_set = noting  # type: ignore[method-assign]
    return ends


def many_models(site: Site) -> Site:
    demo, pool = site.catalog.model("demo"), site.pool
    models = tuple(demo.model_copy(update={"name": name}) for name in MODELS)
    changed = {"models": MODELS, "concurrency": 4, "replicas": {"max": WORKERS}}
    pools = (type(pool).model_validate({**pool.model_dump(), **changed}),)
    changes = {"models": models, "pools": pools, "default_model": MODELS[0]}
    return site.changed(catalog=site.catalog.model_copy(update=changes))


async def submit(site: Site, dice: random.Random, seed: int) -> str:
    now = site.clock.now()
    asked = make_generation(
        model=dice.choice(MODELS),
        seed=seed * 10,
        width=64,
        height=64,
        num_inference_steps=dice.choice((2, 4)),
        num_images=dice.choice((1, 1, 1, 3)),
    )
    soon = now + timedelta(seconds=dice.uniform(0, 2)) if dice.random() < 0.1 else None
    job = make_job(
        pool=POOL,
        tenant=dice.choice(TENANTS),
        generation=asked,
        deadline_at=soon,
        created_at=now,
        updated_at=now,
    )
    await site.create(job)
    await site.send(job)
    return job.id


async def work(site: Site, dice: random.Random, over: asyncio.Event) -> None:
    """Run one worker after the other, each for a while, until ``over``."""
    while not over.is_set():
        drain = Drain(grace_seconds=dice.choice((0.01, 0.05, 5.0)))
        worker = asyncio.create_task(site.build(FaultyEngine(dice), drain).run())
        with suppress(TimeoutError):
            async with asyncio.timeout(dice.uniform(0.1, 0.8)):
                await over.wait()
        drain.begin("a while is over")
        with suppress(DeviceLost):
            await worker


def total(site: Site, name: str, **labels: str) -> float:
    return site.metrics.registry.get_sample_value(name, {"pool": POOL, **labels}) or 0.0


class FlakyQueue(MemoryJobQueue):
    """A queue that does not answer every tenth time."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(lease_seconds=1.0, max_delivery_count=1_000)
        self._dice = dice

    def _falter(self) -> None:
        if self._dice.random() < 0.1:
            raise QueueUnavailable("no answer")

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        self._falter()
        return await super().lease(max_messages, max_wait_seconds)

    def renew(self, token: str) -> datetime:
        self._falter()
        return super().renew(token)

    def complete(self, token: str) -> None:
        self._falter()
        super().complete(token)

    def abandon(self, token: str, delay_seconds: float, counted: bool) -> None:
        self._falter()
        super().abandon(token, delay_seconds, counted)


class FlakyJobs(MemoryJobStore):
    """A store that does not answer every twentieth write, or only after it was done."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        fate = self._dice.random()
        if fate < 0.05:
            raise StoreUnavailable("no answer")
        written = await super().compare_and_set(job, expected_version)
        if fate < 0.10:
            raise StoreUnavailable("an answer was lost")
        return written


async def submit_all(site: Site, dice: random.Random) -> list[str]:
    ids: list[str] = []
    for number in range(JOBS):
        ids.append(await submit(site, dice, number))
        if dice.random() < 0.15:
            with suppress(StoreUnavailable):
                await site.cancel(dice.choice(ids))
        await asyncio.sleep(dice.uniform(0, 0.02))
    return ids


async def through_turmoil(site: Site, dice: random.Random) -> list[Job]:
    """Submit jobs to workers that come and go; return their records, with nothing left behind."""
    noise: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    over, before = asyncio.Event(), asyncio.all_tasks()
    seeds = [dice.random() for _ in range(WORKERS)]
    workers = [asyncio.create_task(work(site, random.Random(one), over)) for one in seeds]
    ids = await submit_all(site, dice)
    jobs = [await site.ended(job_id, seconds=30) for job_id in ids]
    await site.settled(seconds=30)
    over.set()
    await asyncio.gather(*workers)

    async def none_left() -> bool:
        return asyncio.all_tasks() <= before

    await eventually(none_left)
    gc.collect()
    assert noise == []
    assert (held(site), total(site, "darkroom_jobs_in_flight")) == (0, 0)
    depth = await site.queue.depth()
    assert (depth.active, depth.scheduled) == (0, 0)
    return jobs


async def check(site: Site, jobs: Sequence[Job], ends: dict[str, set[tuple[Any, ...]]]) -> None:
    assert {job.id: len(ends[job.id]) for job in jobs} == {job.id: 1 for job in jobs}
    for job in jobs:
        if job.status is JobState.SUCCEEDED:
            assert await has_its_pictures(site, job)
        assert job.error is None or job.error.code in CODES
    assert sum(job.status is JobState.SUCCEEDED for job in jobs) > JOBS / 2


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_job_has_one_right_end_whatever_happens(site: Site, seed: int) -> None:
    dice, site = random.Random(seed), many_models(site)
    ends = note_ends(site.jobs)
    jobs = await through_turmoil(site, dice)
    await check(site, jobs, ends)
    for job in jobs:
        assert await site.has_image(job.id) is (job.status is JobState.SUCCEEDED)
    charged = sum(job.usage.gpu_seconds for job in jobs)
    used = total(site, "darkroom_device_seconds_total", doing="generate")
    assert charged == pytest.approx(used, rel=0.02, abs=0.02)


async def test_it_has_though_queue_and_records_answer_only_now_and_then(
    memory_site: Site,
) -> None:
    dice = random.Random(3)
    flaky = {"queue": FlakyQueue(dice), "jobs": FlakyJobs(dice)}
    site = many_models(memory_site.changed(**flaky, renew_seconds=0.2, claim_seconds=1.0))
    ends = note_ends(site.jobs)
    jobs = await through_turmoil(site, dice)
    await check(site, jobs, ends)
