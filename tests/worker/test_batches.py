"""Jobs that share a pipeline call, and what one of them may do to the others: nothing."""

import io
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from darkroom.errors import GenerationFailed, InvalidInput, LeaseLost, OutOfMemory
from darkroom.imagestores.base import output_name
from darkroom.jobs import Job, JobState
from darkroom.queues.memory import MemoryJobQueue
from tests.worker.batching import OpeningEngine, all_ended, pool_of, submit_batch
from tests.worker.site import MAX_DELIVERIES, Site, eventually
from worker.engines.base import GenerationTask
from worker.engines.fake import fake_picture

BAD = "the one at fault"


@pytest.fixture
def batching(site: Site) -> Site:
    """A pool whose workers run eight jobs at once."""
    return pool_of(site, concurrency=8)


async def has_its_pictures(site: Site, job: Job) -> bool:
    asked = job.generation
    for index, seed in enumerate(asked.seeds):
        png = await site.images.get(job.id, output_name(index))
        drawn = fake_picture(asked.prompt, seed, asked.width, asked.height)
        if not np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(drawn)):
            return False
    return True


async def test_jobs_that_agree_share_a_call_and_each_gets_its_own_picture(batching: Site) -> None:
    engine = OpeningEngine()
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, *({"seed": seed} for seed in range(8)))
        jobs = await all_ended(batching, ids)
        await batching.settled()
    assert engine.sizes == [8]
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}
    assert all([await has_its_pictures(batching, job) for job in jobs])


@pytest.mark.parametrize(
    "other",
    [
        {"num_inference_steps": 5},
        {"width": 128},
        {"guidance_scale": 3.0},
        {"scheduler": "EulerDiscreteScheduler"},
    ],
)
async def test_jobs_that_differ_do_not(memory_site: Site, other: dict[str, object]) -> None:
    site, engine = pool_of(memory_site, concurrency=8), OpeningEngine()
    async with site.worker(engine):
        ids = await submit_batch(site, engine, {}, other, {}, other)
        await all_ended(site, ids)
    assert engine.sizes == [2, 2]


async def test_a_call_has_no_more_jobs_than_the_pool_runs_at_once(memory_site: Site) -> None:
    site, engine = pool_of(memory_site, concurrency=3), OpeningEngine()
    async with site.worker(engine):
        ids = await submit_batch(site, engine, *({"seed": seed} for seed in range(7)))
        await all_ended(site, ids)
    assert engine.sizes == [3, 3, 1]


async def test_a_batch_takes_no_longer_than_the_longest_job_may(memory_site: Site) -> None:
    """Or the grace period of a drain would not cover it."""
    site, engine = pool_of(memory_site, concurrency=8, max_gpu_seconds=25), OpeningEngine()
    async with site.worker(engine):
        await site.submit(num_inference_steps=1)
        await eventually(lambda: _is_set(engine.waiting))
        jobs = [await site.create(seed=seed) for seed in range(4)]
        for job in jobs:
            long = job.model_copy(update={"estimated_gpu_seconds": 10.0})
            await site.send(long)
        engine.open()
        await all_ended(site, [job.id for job in jobs])
    assert max(engine.sizes) == 2


async def _is_set(event: threading.Event) -> bool:
    return event.is_set()


def fails_with(error: Exception) -> OpeningEngine:
    """An engine whose calls fail that have the job at fault in them."""

    def fail(call: Sequence[GenerationTask]) -> None:
        if any(task.generation.prompt == BAD for task in call):
            raise error

    return OpeningEngine(fail)


async def test_an_error_that_one_job_causes_fails_that_job_alone(batching: Site) -> None:
    engine = fails_with(InvalidInput("no such thing", target="prompt"))
    asked = [{"seed": seed} for seed in range(5)]
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, *asked[:2], {"prompt": BAD}, *asked[2:])
        jobs = await all_ended(batching, ids)
    bad = jobs.pop(2)
    assert (bad.status, bad.error.code) == (JobState.FAILED, "InvalidParameter")
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}
    assert engine.sizes == [6, 1, 1, 1, 1, 1, 1]


async def test_a_job_that_always_fails_uses_up_its_own_deliveries_only(batching: Site) -> None:
    engine = fails_with(GenerationFailed("no"))
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, {"seed": 1}, {"prompt": BAD}, {"seed": 2})
        one, bad, other = await all_ended(batching, ids)
    assert (bad.status, bad.attempts) == (JobState.FAILED, MAX_DELIVERIES)
    assert {(one.status, one.attempts), (other.status, other.attempts)} == {("Succeeded", 1)}


async def test_a_cancel_ends_its_job_while_the_others_go_on(batching: Site) -> None:
    engine = OpeningEngine(step_seconds=0.01)
    asked = [{"seed": seed, "num_inference_steps": 150} for seed in range(4)]
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, *asked)
        await _reached(engine, 3)
        await batching.cancel(ids[1])
        canceled = await batching.ended(ids[1])
        steps = engine.steps
        jobs = await all_ended(batching, ids)
    assert canceled.status is JobState.CANCELED
    assert steps < 150, "the record waits for nobody"
    assert not await batching.has_image(ids[1])
    del jobs[1]
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}
    assert all([await has_its_pictures(batching, job) for job in jobs])


async def _reached(engine: OpeningEngine, step: int) -> None:
    async def there() -> bool:
        return len(engine.calls) > 0 and engine.steps >= step

    await eventually(there, every=0.001)


async def test_a_call_ends_early_when_all_of_its_jobs_are_canceled(batching: Site) -> None:
    engine = OpeningEngine(step_seconds=0.01)
    asked = [{"seed": seed, "num_inference_steps": 1_000} for seed in range(3)]
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, *asked)
        await _reached(engine, 3)
        for job_id in ids:
            await batching.cancel(job_id)
        jobs = await all_ended(batching, ids)
        await batching.settled()
    assert {job.status for job in jobs} == {JobState.CANCELED}
    assert engine.steps < 1_000


class ForgetfulQueue(MemoryJobQueue):
    """A queue that forgets the lease of one message."""

    forgotten = ""

    def renew(self, token: str) -> "object":  # type: ignore[override]
        entry, _ = self._held(token)
        if entry.message_id == self.forgotten:
            raise LeaseLost("forgotten")
        return super().renew(token)


async def test_a_lost_lease_frees_its_job_while_the_others_go_on(memory_site: Site) -> None:
    queue = ForgetfulQueue(lease_seconds=30, max_delivery_count=4)
    site = pool_of(memory_site.changed(queue=queue, renew_seconds=0.05), concurrency=8)
    engine = OpeningEngine(step_seconds=0.01)
    asked = [{"seed": seed, "num_inference_steps": 100} for seed in range(3)]
    async with site.worker(engine):
        ids = await submit_batch(site, engine, *asked)
        await _reached(engine, 2)
        queue.forgotten = ids[0]

        async def freed() -> bool:
            return (await site.jobs.get(ids[0])).status is JobState.NOT_STARTED

        await eventually(freed)
        assert engine.steps < 100
        jobs = await all_ended(site, ids[1:])
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}
    assert not await site.has_image(ids[0])


def with_room_for(pictures: int) -> OpeningEngine:
    """An engine whose device has room for so many pictures in one call."""

    def fail(call: Sequence[GenerationTask]) -> None:
        if sum(len(task.seeds) for task in call) > pictures:
            raise OutOfMemory("too many")

    return OpeningEngine(fail)


async def test_a_lack_of_memory_halves_the_call_and_fails_nobody(batching: Site) -> None:
    engine = with_room_for(3)
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, *({"seed": seed} for seed in range(8)))
        jobs = await all_ended(batching, ids)
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}
    assert engine.sizes == [8, 4, 2, 2, 2, 2]
    assert all([await has_its_pictures(batching, job) for job in jobs])


async def test_what_fits_is_remembered(batching: Site) -> None:
    engine = with_room_for(2)
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, *({"seed": seed} for seed in range(12)))
        await all_ended(batching, ids)
    assert engine.sizes == [8, 4, 2, 2, 2, 2, 2, 2]


async def test_the_pictures_of_one_job_are_split_over_calls_too(batching: Site) -> None:
    engine = with_room_for(3)
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, {"seed": 5, "num_images": 8})
        (job,) = await all_ended(batching, ids)
    assert (job.status, job.attempts, len(job.images)) == (JobState.SUCCEEDED, 1, 8)
    assert engine.sizes == [8, 4, 2, 2, 2, 2]
    assert await has_its_pictures(batching, job)


async def test_only_a_job_whose_single_picture_does_not_fit_fails_of_it(batching: Site) -> None:
    def fail(call: Sequence[GenerationTask]) -> None:
        if any(task.generation.prompt == BAD for task in call) or len(call) > 1:
            raise OutOfMemory("too many")

    engine = OpeningEngine(fail)
    async with batching.worker(engine):
        ids = await submit_batch(batching, engine, {"seed": 1}, {"prompt": BAD}, {"seed": 2})
        one, bad, other = await all_ended(batching, ids)
    assert (bad.status, bad.error.code) == (JobState.FAILED, "OutOfMemory")
    assert bad.attempts == MAX_DELIVERIES
    assert {(one.status, one.attempts), (other.status, other.attempts)} == {("Succeeded", 1)}
