"""Retryable and terminal failures, the delivery limit, poison, and stores that are out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from darkroom.errors import (
    DarkroomError,
    DeviceLost,
    GenerationFailed,
    InvalidInput,
    ModelUnavailable,
    OutOfMemory,
    StoreUnavailable,
)
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import Job, JobState, claim
from darkroom.jobstores.memory import MemoryJobStore
from tests.worker.site import MAX_DELIVERIES, Site, eventually
from worker.backoff import Backoff
from worker.drain import Drain
from worker.engines.fake import FakeEngine


def failing(error: Exception, times: int = 1_000) -> FakeEngine:
    """An engine whose first ``times`` calls raise ``error``."""
    left = [times]

    def fail(batch: object) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise error

    return FakeEngine(fail=fail)


async def test_a_retryable_failure_is_tried_again(site: Site) -> None:
    job_id = await site.submit()
    async with site.worker(failing(OutOfMemory("too big"), times=2)):
        job = await site.ended(job_id)
        await site.settled()
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 3)
    assert site.returned("abandoned", "OutOfMemory") == 2


async def test_the_last_retryable_failure_is_recorded_and_dead_lettered_alike(site: Site) -> None:
    job_id = await site.submit()
    async with site.worker(failing(OutOfMemory("too big"))):
        job = await site.ended(job_id)
        await site.settled()
    assert job.error is not None
    assert (job.status, job.error.code) == (JobState.FAILED, "OutOfMemory")
    assert job.attempts == MAX_DELIVERIES
    (dead,) = await site.queue.dead_letters()
    assert (dead.message_id, dead.reason) == (job_id, "OutOfMemory")


async def test_a_failed_attempt_gives_the_job_back_to_its_queue_between_deliveries(
    site: Site,
) -> None:
    patient = site.changed(backoff=Backoff(base_seconds=3600, cap_seconds=3600))
    job_id = await patient.submit()
    async with patient.worker(failing(GenerationFailed("no"))):
        await _returned(patient, "GenerationFailed")
    job = await patient.jobs.get(job_id)
    assert (job.status, job.attempts, job.claim_expires_at) == (JobState.NOT_STARTED, 1, None)
    depth = await patient.queue.depth()
    assert (depth.active, depth.scheduled) == (0, 1)


@pytest.mark.parametrize(
    "error", [InvalidInput("no such thing", target="scheduler"), ModelUnavailable("gone")]
)
async def test_a_terminal_failure_ends_the_job_at_once(site: Site, error: DarkroomError) -> None:
    job_id = await site.submit()
    async with site.worker(failing(error)):
        job = await site.ended(job_id)
        await site.settled()
    assert job.error is not None
    assert (job.status, job.attempts) == (JobState.FAILED, 1)
    assert (job.error.code, job.error.target) == (error.code, error.target)
    assert (await site.queue.depth()).dead_lettered == 0


async def test_a_job_that_costs_every_worker_its_gpu_fails_in_the_end(site: Site) -> None:
    """A device-side assert may come from the job itself: it counts against the limit."""
    job_id = await site.submit()
    for _ in range(MAX_DELIVERIES):
        worker = site.build(failing(DeviceLost("gone")), Drain(10))
        with pytest.raises(DeviceLost):
            await worker.run()
    job = await site.jobs.get(job_id)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobState.FAILED, "DeviceLost")
    (dead,) = await site.queue.dead_letters()
    assert (dead.message_id, dead.reason) == (job_id, "DeviceLost")


async def test_an_unknown_error_of_the_pipeline_is_retryable_and_tells_no_content(
    site: Site,
) -> None:
    job_id = await site.submit(prompt="a very private prompt")
    async with site.worker(failing(RuntimeError("choked on: a very private prompt"))):
        job = await site.ended(job_id)
    assert job.error is not None
    assert (job.error.code, job.attempts) == ("GenerationFailed", MAX_DELIVERIES)
    assert "private" not in job.error.message
    assert "RuntimeError" in job.error.message


async def test_a_model_that_the_workers_catalog_lacks_fails_the_job(site: Site) -> None:
    job_id = await site.submit(model="unheard-of")
    async with site.worker():
        job = await site.ended(job_id)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobState.FAILED, "UnknownModel")


async def test_a_failed_load_is_not_taken_for_a_loaded_model(site: Site) -> None:
    tries: list[str] = []

    def fail_once(model: object) -> None:
        tries.append("load")
        if len(tries) == 1:
            raise OutOfMemory("no room")

    job_id = await site.submit()
    async with site.worker(FakeEngine(fail_load=fail_once)):
        job = await site.ended(job_id)
    assert (job.status, len(tries)) == (JobState.SUCCEEDED, 2)


async def test_a_job_whose_workers_died_on_every_delivery_fails_and_is_not_run_again(
    site: Site,
) -> None:
    job_id = await site.submit()
    long_ago = site.clock.now() - timedelta(hours=1)
    for _ in range(MAX_DELIVERIES):  # a claim, then silence, each time
        (lease,) = await site.queue.lease(1, 0)
        await site.write(job_id, lambda job: claim(job, long_ago, claim_seconds=1))
        await lease.abandon()
    async with site.worker():
        job = await site.ended(job_id)
        await site.settled()
    assert job.error is not None
    assert (job.status, job.error.code) == (JobState.FAILED, "GenerationFailed")
    assert job.attempts == MAX_DELIVERIES
    (dead,) = await site.queue.dead_letters()
    assert (dead.message_id, dead.reason) == (job_id, "GenerationFailed")


@dataclass(frozen=True)
class RawMessage:
    """A message with a body of our own choice."""

    message_id: str
    body: bytes
    properties: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        return self.body


async def test_a_message_of_an_unknown_version_waits_for_a_newer_worker(site: Site) -> None:
    patient = site.changed(backoff=Backoff(base_seconds=3600, cap_seconds=3600))
    job = await patient.create()
    newer = json.dumps({"version": 2, "job_id": job.id}).encode()
    await patient.queue.send(RawMessage(job.id, newer))
    async with patient.worker():
        await _returned(patient, "UnsupportedMessage")
    assert await patient.jobs.get(job.id) == job
    assert (await patient.queue.depth()).scheduled == 1


async def test_a_message_that_nobody_can_read_fails_its_job_and_is_dead_lettered(
    site: Site,
) -> None:
    job = await site.create()
    await site.queue.send(RawMessage(job.id, b"\xff not json"))
    async with site.worker():
        failed = await site.ended(job.id)
        await site.settled()
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (JobState.FAILED, "UnsupportedMessage")
    (dead,) = await site.queue.dead_letters()
    assert (dead.reason, dead.delivery_count) == ("UnsupportedMessage", MAX_DELIVERIES)


async def test_poison_without_a_job_is_dead_lettered_and_the_worker_goes_on(site: Site) -> None:
    """Guards the last delivery of `Failures.unreadable` (worker/failures.py).

    (Removing it makes this fail; tried.)
    """
    await site.queue.send(RawMessage("nobody's", b"garbage"))
    job_id = await site.submit()
    async with site.worker():
        await site.ended(job_id)
        await site.settled()
    (dead,) = await site.queue.dead_letters()
    assert (dead.message_id, dead.reason) == ("nobody's", "UnsupportedMessage")


class FlakyJobStore(MemoryJobStore):
    """Job records whose next ``outages`` writes do not get through."""

    outages = 0

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        if self.outages and job.status is not JobState.RUNNING:
            self.outages -= 1
            raise StoreUnavailable("down")
        return await super().compare_and_set(job, expected_version)


class ForgetfulJobStore(MemoryJobStore):
    """Job records that write a success, and lose the answer to it."""

    forgot = False

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        written = await super().compare_and_set(job, expected_version)
        if job.status is JobState.SUCCEEDED and not self.forgot:
            self.forgot = True
            raise StoreUnavailable("the answer was lost")
        return written


class FlakyImageStore(MemoryImageStore):
    """Pictures whose next ``outages`` puts do not get through."""

    outages = 0

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("down")
        await super().put(job_id, name, png, attempt=attempt)


async def test_stores_that_are_out_at_the_end_cost_no_second_attempt(memory_site: Site) -> None:
    """Guards `Delivery.insist` (worker/delivery.py).

    (Removing it makes this fail; tried.)
    """
    jobs, images = FlakyJobStore(), FlakyImageStore()
    jobs.outages = images.outages = 2
    site = memory_site.changed(jobs=jobs, images=images)
    job_id = await site.submit()
    async with site.worker():
        job = await site.ended(job_id)
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)
    assert jobs.outages == images.outages == 0


async def test_a_success_whose_answer_was_lost_stays_one_success(memory_site: Site) -> None:
    """Guards `Failures._yield_to` (worker/failures.py), which is done with an ended record.

    (Removing it makes this fail; tried.)
    """
    site = memory_site.changed(jobs=ForgetfulJobStore())
    job_id = await site.submit()
    async with site.worker():
        job = await site.ended(job_id)
        await site.settled()
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)
    assert (await site.queue.depth()).dead_lettered == 0


async def test_no_message_is_set_aside_while_its_record_cannot_say_failed(
    memory_site: Site,
) -> None:
    jobs = FlakyJobStore()
    site = memory_site.changed(jobs=jobs)
    job_id = await site.submit()
    jobs.outages = 3
    async with site.worker(failing(OutOfMemory("too big"))):
        job = await site.ended(job_id, seconds=30)
        await site.settled()
    assert job.error is not None
    (dead,) = await site.queue.dead_letters()
    assert (job.error.code, dead.reason) == ("OutOfMemory", "OutOfMemory")


def test_back_off_doubles_up_to_its_cap_and_starts_by_the_error() -> None:
    backoff = Backoff(base_seconds=2, cap_seconds=60)
    waits = [backoff.bound(GenerationFailed("x"), count) for count in range(1, 8)]
    assert waits == [2, 4, 8, 16, 32, 60, 60]
    assert backoff.bound(OutOfMemory("x"), 1) == 4
    assert all(0 <= backoff.delay(GenerationFailed("x"), 3) <= 8 for _ in range(100))


def test_back_off_is_spread_over_the_whole_bound() -> None:
    backoff = Backoff(base_seconds=10, cap_seconds=10)
    draws = [backoff.delay(GenerationFailed("x"), 1) for _ in range(400)]
    assert min(draws) < 2 < 8 < max(draws)


async def _returned(site: Site, code: str) -> None:
    async def given_back() -> bool:
        return site.returned("abandoned", code) > 0

    await eventually(given_back)
