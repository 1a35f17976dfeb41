"""What a worker does with a message, by what the record says."""

from datetime import timedelta

from darkroom.errors import JobNotFound
from darkroom.jobs import JobError, JobState, claim, fail
from darkroom.messages import message_for
from tests.samples import make_message
from tests.worker.site import MAX_DELIVERIES, Site, eventually


async def test_a_message_without_a_record_is_dead_lettered(site: Site) -> None:
    await site.queue.send(make_message(pool="short"))
    async with site.worker():
        await site.settled()
    (dead,) = await site.queue.dead_letters()
    assert dead.reason == JobNotFound.code


async def test_a_second_delivery_of_a_finished_job_changes_nothing(site: Site) -> None:
    job_id = await site.submit()
    async with site.worker():
        done = await site.ended(job_id)
        await site.queue.send(message_for(done))
        await site.settled()
    again = await site.jobs.get(job_id)
    assert (again, again.version) == (done, done.version)


async def test_a_late_delivery_of_a_failed_job_does_not_reopen_it(site: Site) -> None:
    job_id = await site.submit()
    error = JobError(code="UnsafeContent", message="refused")
    failed = await site.write(job_id, lambda job: fail(job, site.clock.now(), error))
    async with site.worker():
        await site.settled()
    assert await site.jobs.get(job_id) == failed
    assert not await site.has_image(job_id)


async def test_a_job_canceled_while_it_waits_is_never_started(site: Site) -> None:
    job_id = await site.submit()
    await site.cancel(job_id)
    async with site.worker():
        await site.settled()
    job = await site.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobState.CANCELED, 0)
    assert not await site.has_image(job_id)


async def test_a_cancel_that_a_dead_worker_never_saw_is_done_by_the_next(site: Site) -> None:
    job_id = await site.submit()
    long_ago = site.clock.now() - timedelta(hours=1)
    await site.write(job_id, lambda job: claim(job, long_ago, claim_seconds=1))
    await site.cancel(job_id)
    async with site.worker():
        job = await site.ended(job_id)
        await site.settled()
    assert (job.status, job.attempts) == (JobState.CANCELED, 1)


async def test_a_job_past_its_deadline_fails_without_being_started(site: Site) -> None:
    job_id = await site.submit()
    past = site.clock.now() - timedelta(seconds=1)
    await site.write(job_id, lambda job: job.model_copy(update={"deadline_at": past}))
    async with site.worker():
        job = await site.ended(job_id)
        await site.settled()
    assert job.error is not None
    assert (job.status, job.error.code, job.attempts) == (JobState.FAILED, "DeadlineExceeded", 0)


async def test_a_job_that_another_attempt_may_still_run_waits_for_its_claim_to_expire(
    site: Site,
) -> None:
    job_id = await site.submit()
    await site.write(job_id, lambda job: claim(job, site.clock.now(), claim_seconds=0.6))
    held_until = (await site.jobs.get(job_id)).claim_expires_at
    assert held_until is not None
    async with site.worker():
        job = await site.ended(job_id)
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 2)
    assert job.finished_at is not None
    assert job.finished_at > held_until
    assert site.returned("abandoned", "AlreadyClaimed") <= 2  # it waits; it does not spin


async def test_waiting_for_another_attempt_does_not_count_against_the_limit(site: Site) -> None:
    job_id = await site.submit()
    await site.write(job_id, lambda job: claim(job, site.clock.now(), claim_seconds=5))

    async def waited_often() -> bool:
        soon = site.clock.now() + timedelta(seconds=0.15)
        await site.write(job_id, lambda job: job.model_copy(update={"claim_expires_at": soon}))
        return site.returned("abandoned", "AlreadyClaimed") > MAX_DELIVERIES

    async with site.worker():
        await eventually(waited_often)
        job = await site.ended(job_id)
    assert job.status is JobState.SUCCEEDED
    assert (await site.queue.depth()).dead_lettered == 0
