"""Workers as real processes that are killed, frozen and told to go."""

import io
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.catalog import load_catalog
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.imagestores.base import output_name
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.jobs import Job, JobState
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.messages import message_for
from darkroom.queues import sqlite as sqlite_queues
from darkroom.sqlite import Database
from tests.worker.processes import Machine
from tests.worker.site import MAX_DELIVERIES, POOL, Site, eventually
from worker.engines.fake import fake_picture


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
async def site(machine: Machine) -> AsyncIterator[Site]:
    """The test's own view of the machine's backends."""
    queue = sqlite_queues.SqliteJobQueue(
        Database(machine.folder / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable),
        POOL,
        lease_seconds=2,
        max_delivery_count=MAX_DELIVERIES + 1,
    )
    jobs = sqlite_jobs.SqliteJobStore(
        Database(machine.folder / "jobs.db", sqlite_jobs.SCHEMA, StoreUnavailable)
    )
    yield Site(
        queue=queue,
        jobs=jobs,
        images=FilesystemImageStore(machine.folder / "images"),
        catalog=load_catalog(machine.folder / "catalog.yaml"),
    )
    await queue.close()
    await jobs.close()


async def _at_step(site: Site, job_id: str, step: int) -> None:
    async def there() -> bool:
        return (await site.jobs.get(job_id)).step >= step

    await eventually(there, seconds=30)


async def _is_its_own_picture(site: Site, job: Job) -> bool:
    png = await site.images.get(job.id, output_name(0))
    asked = job.generation
    drawn = fake_picture(asked.prompt, asked.seed, asked.width, asked.height)
    return np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(drawn))


async def test_a_job_whose_worker_was_killed_is_done_by_the_next_with_the_same_pixels(
    machine: Machine, site: Site
) -> None:
    """Guards the end of a claim in `is_claimed` (darkroom/jobs.py).

    (Removing it makes this fail; tried.)
    """
    job_id = await site.submit(num_inference_steps=40)
    async with machine.worker(fake_step_seconds=0.1, progress_seconds=0) as first:
        await _at_step(site, job_id, 3)
        first.signal(signal.SIGKILL)
        await first.exit_code()
    assert (await site.jobs.get(job_id)).status is JobState.RUNNING
    async with machine.worker():
        job = await site.ended(job_id, seconds=30)
        await site.settled()
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 2)
    assert await _is_its_own_picture(site, job)


async def test_two_hundred_jobs_over_three_workers_are_each_done_once(
    machine: Machine, site: Site
) -> None:
    ids = [await site.submit(seed=number) for number in range(200)]
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(machine.worker(fake_step_seconds=0.005))
            for _ in range(3)
        ]
        await site.settled(seconds=60)
        for worker in workers:
            worker.signal(signal.SIGTERM)
        assert [await worker.exit_code() for worker in workers] == [0, 0, 0]
        done = [
            line["job_id"]
            for worker in workers
            for line in worker.events
            if line["event"] == "job_succeeded"
        ]
        shares = [
            sum(line["event"] == "job_succeeded" for line in worker.events) for worker in workers
        ]
    jobs = [await site.jobs.get(job_id) for job_id in ids]
    assert {(job.status, job.attempts) for job in jobs} == {(JobState.SUCCEEDED, 1)}
    assert sorted(done) == sorted(ids)
    assert all([await _is_its_own_picture(site, job) for job in jobs[::20]])
    assert min(shares) > 0, f"one worker did nothing: {shares}"


async def test_a_worker_whose_gpu_fails_gives_the_job_back_and_ends_with_1(
    machine: Machine, site: Site
) -> None:
    """So that Kubernetes starts it again: nothing else brings such a GPU back."""
    ids = [await site.submit(seed=number) for number in range(2)]
    async with machine.worker("tests.worker.losing_device", retry_base_seconds=0) as broken:
        assert await broken.exit_code() == 1
        lost = await broken.logged("device_lost")
    assert lost["message"] == "the GPU failed: device-side assert triggered"
    jobs = [await site.jobs.get(job_id) for job_id in ids]
    assert {job.status for job in jobs} == {JobState.NOT_STARTED}
    assert sum(job.attempts for job in jobs) == 1, "it must not go on to the next job"
    async with machine.worker():
        done = [await site.ended(job_id, seconds=30) for job_id in ids]
    assert {job.status for job in done} == {JobState.SUCCEEDED}


async def test_sigterm_lets_the_running_job_end_and_exits_with_zero(
    machine: Machine, site: Site
) -> None:
    running = await site.submit(num_inference_steps=20)
    waiting = await site.submit(num_inference_steps=20)
    async with machine.worker(fake_step_seconds=0.05, progress_seconds=0) as worker:
        await _at_step(site, running, 2)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
    assert (await site.jobs.get(running)).status is JobState.SUCCEEDED
    assert (await site.jobs.get(waiting)).status is JobState.NOT_STARTED


async def test_sigterm_gives_back_what_does_not_end_within_the_grace_period(
    machine: Machine, site: Site
) -> None:
    job_id = await site.submit(num_inference_steps=150)
    pace = {"fake_step_seconds": 0.1, "progress_seconds": 0, "grace_seconds": 0.3}
    async with machine.worker(**pace) as worker:
        await _at_step(site, job_id, 2)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code(seconds=5) == 0
    job = await site.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobState.NOT_STARTED, 1)
    (lease,) = await site.queue.lease(1, 0)
    assert lease.delivery_count == 1, "the drain must not count against the delivery limit"


async def test_an_idle_worker_leaves_at_once(machine: Machine) -> None:
    async with machine.worker() as worker:
        ready = await worker.logged("ready")
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code(seconds=5) == 0
    assert (ready["pool"], ready["device"]) == (POOL, "fake")


async def test_a_frozen_worker_that_wakes_as_a_zombie_changes_nothing(
    machine: Machine, site: Site
) -> None:
    job_id = await site.submit(num_inference_steps=30)
    async with machine.worker(fake_step_seconds=0.1, progress_seconds=0) as zombie:
        await _at_step(site, job_id, 1)
        zombie.signal(signal.SIGSTOP)
        async with machine.worker():
            done = await site.ended(job_id, seconds=30)
        file = next((machine.folder / "images").rglob(output_name(0)))
        before = (file.stat().st_mtime_ns, file.stat().st_ino)
        zombie.signal(signal.SIGCONT)
        await _woken(zombie.events)
    again = await site.jobs.get(job_id)
    assert (done.status, done.attempts) == (JobState.SUCCEEDED, 2)
    assert (again, again.version) == (done, done.version)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before


async def _woken(events: list[dict[str, object]]) -> None:
    async def stopped() -> bool:
        return any(line["event"] == "delivery_returned" for line in events)

    await eventually(stopped, seconds=20)


async def test_no_line_of_the_log_holds_the_prompt(machine: Machine, site: Site) -> None:
    job_id = await site.submit(prompt="a very private prompt", negative_prompt="private as well")
    async with machine.worker() as worker:
        await site.ended(job_id, seconds=30)
        worker.signal(signal.SIGTERM)
        await worker.exit_code()
    assert any(line["event"] == "job_claimed" for line in worker.events)
    assert "private" not in str(worker.events)


async def test_log_lines_carry_the_trace_of_the_submit(machine: Machine, site: Site) -> None:
    job = await site.create()
    traced = job.model_copy(update={"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01"})
    await site.queue.send(message_for(traced))
    async with machine.worker() as worker:
        line = await worker.logged("job_succeeded")
    assert (line["job_id"], line["trace_id"]) == (job.id, "a1" * 16)


async def test_a_worker_that_cannot_start_says_which_setting_is_wrong(machine: Machine) -> None:
    async with machine.worker(pool="nowhere") as worker:
        assert await worker.exit_code() != 0
    assert any("'nowhere'" in line["event"] for line in worker.events)
