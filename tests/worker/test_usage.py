"""What a job has cost is written down, whatever came of it."""

import time

import pytest

from darkroom.errors import GenerationFailed, InvalidInput
from darkroom.jobs import Job, JobState
from tests.worker.site import POOL, CountingEngine, Site, eventually
from worker.backoff import Backoff
from worker.engines.fake import FakeEngine

STEP_SECONDS = 0.05


def failing_late(error: Exception, times: int = 1_000) -> FakeEngine:
    """An engine that works for a step and then raises ``error``."""
    left = [times]

    def fail(batch: object) -> None:
        if left[0] > 0:
            left[0] -= 1
            time.sleep(STEP_SECONDS)
            raise error

    return FakeEngine(fail=fail)


def costs(site: Site, job: Job, at_least_seconds: float) -> bool:
    used = job.usage
    assert used.cost_usd == pytest.approx(site.catalog.pool(POOL).cost_usd(used.gpu_seconds))
    return at_least_seconds <= used.gpu_seconds < at_least_seconds + 5 and used.cost_usd > 0


async def test_a_failed_job_says_what_it_cost(site: Site) -> None:
    job_id = await site.submit()
    async with site.worker(failing_late(InvalidInput("no", target="prompt"))):
        job = await site.ended(job_id)
    assert job.status is JobState.FAILED
    assert costs(site, job, STEP_SECONDS)


async def test_a_canceled_job_says_what_it_cost(site: Site) -> None:
    engine = CountingEngine(step_seconds=STEP_SECONDS)
    job_id = await site.submit(num_inference_steps=1_000)

    async def at_work() -> bool:
        return engine.steps >= 2

    async with site.worker(engine):
        await eventually(at_work)
        await site.cancel(job_id)
        job = await site.ended(job_id)
    assert job.status is JobState.CANCELED
    assert costs(site, job, 2 * STEP_SECONDS)


async def test_a_job_that_is_given_back_keeps_its_bill(site: Site) -> None:
    patient = site.changed(backoff=Backoff(base_seconds=3600, cap_seconds=3600))
    job_id = await patient.submit()

    async def given_back() -> bool:
        return patient.returned("abandoned", "GenerationFailed") == 1

    async with patient.worker(failing_late(GenerationFailed("no"))):
        await eventually(given_back)
    job = await patient.jobs.get(job_id)
    assert job.status is JobState.NOT_STARTED
    assert costs(site, job, STEP_SECONDS)


async def test_every_attempt_is_on_the_bill(site: Site) -> None:
    job_id = await site.submit()
    async with site.worker(failing_late(GenerationFailed("no"), times=2)):
        job = await site.ended(job_id)
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 3)
    assert costs(site, job, 2 * STEP_SECONDS)


async def test_a_job_that_waited_and_was_canceled_cost_nothing(site: Site) -> None:
    job_id = await site.submit()
    job = await site.cancel(job_id)
    assert (job.status, job.usage.gpu_seconds, job.usage.cost_usd) == (JobState.CANCELED, 0, 0)
