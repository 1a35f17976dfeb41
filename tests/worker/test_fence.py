"""Zombies: a worker whose attempt was overtaken, or whose lease is gone, publishes nothing."""

import asyncio
import threading
from datetime import timedelta

import pytest

from darkroom.errors import LeaseLost, QueueUnavailable
from darkroom.imagestores.base import output_name
from darkroom.jobs import Job, JobState, claim
from darkroom.queues.base import Lease
from darkroom.queues.memory import MemoryJobQueue
from tests.worker.site import CountingEngine, Site, eventually
from worker.background import beside
from worker.claims import Claim, take
from worker.engines.fake import FakeEngine
from worker.renewal import Renewal
from worker.stopping import StopSignal
from worker.watch import WatchPace

BLIND = WatchPace(progress_seconds=3600, cancel_check_seconds=3600)


class GatedEngine(CountingEngine):
    """An engine that waits at ``gate_step`` until the test opens ``gate``."""

    def __init__(self, gate_step: int) -> None:
        self.gate = threading.Event()
        self.waiting = threading.Event()
        self._gate_step = gate_step
        super().__init__(at_step=self._wait)

    def _wait(self, step: int) -> None:
        if step == self._gate_step:
            self.waiting.set()
            assert self.gate.wait(20)

    async def at_gate(self) -> None:
        async def there() -> bool:
            return self.waiting.is_set()

        await eventually(there)


def overtake(site: Site, job: Job) -> Job:
    """What another worker writes that took the job over after the claim had expired."""
    return claim(job, site.clock.now(), claim_seconds=3600)


async def test_an_overtaken_worker_stops_generating(site: Site) -> None:
    engine = GatedEngine(gate_step=3)
    job_id = await site.submit(num_inference_steps=1_000)
    async with site.worker(engine):
        await engine.at_gate()
        taken = await site.write(job_id, lambda job: overtake(site, job))
        engine.at_step = lambda step: _sleep()
        engine.gate.set()

        async def given_back() -> bool:
            return site.returned("abandoned", "AlreadyClaimed") == 1

        await eventually(given_back)
    assert engine.steps < 1_000
    assert await site.jobs.get(job_id) == taken
    assert not await site.has_image(job_id)


def _sleep() -> None:
    threading.Event().wait(0.01)


async def test_a_worker_that_was_overtaken_unseen_still_publishes_nothing(site: Site) -> None:
    """Guards the fence, `check_attempt` (darkroom/jobs.py).

    (Removing it makes this fail; tried.)
    """
    blind = site.changed(pace=BLIND)
    engine = GatedEngine(gate_step=4)
    job_id = await blind.submit(num_inference_steps=4)
    async with blind.worker(engine):
        await engine.at_gate()
        taken = await blind.write(job_id, lambda job: overtake(blind, job))
        engine.gate.set()

        async def given_back() -> bool:
            return blind.returned("abandoned", "AlreadyClaimed") == 1

        await eventually(given_back)
    again = await blind.jobs.get(job_id)
    assert (again, again.version) == (taken, taken.version)
    assert not await blind.has_image(job_id)


async def test_a_zombie_changes_neither_record_nor_image_of_the_worker_that_took_over(
    site: Site,
) -> None:
    """Renewals that come too late, as after a freeze: the message goes to another worker."""
    zombie_site = site.changed(renew_seconds=600, claim_seconds=0.1, pace=BLIND)
    zombie = GatedEngine(gate_step=4)
    job_id = await site.submit(num_inference_steps=4)
    async with zombie_site.worker(zombie):
        await zombie.at_gate()
        async with site.worker(FakeEngine()):
            done = await site.ended(job_id, seconds=20)  # after the zombie's lease has run out
        picture = await site.images.get(job_id, output_name(0))
        zombie.gate.set()
    again = await site.jobs.get(job_id)
    assert (done.status, done.attempts) == (JobState.SUCCEEDED, 2)
    assert (again, again.version) == (done, done.version)
    assert await site.images.get(job_id, output_name(0)) == picture
    assert (await site.queue.depth()).active == 0


async def test_a_lease_and_its_claim_are_renewed_for_as_long_as_the_job_runs(site: Site) -> None:
    quick = site.changed(renew_seconds=0.1, claim_seconds=0.3, pace=BLIND)
    job_id = await quick.submit(num_inference_steps=60)
    async with quick.worker(CountingEngine(step_seconds=0.02)):
        await _running(quick, job_id)
        for _ in range(8):
            await asyncio.sleep(0.1)
            job = await quick.jobs.get(job_id)
            assert job.claim_expires_at is not None
            assert job.claim_expires_at > quick.clock.now()
        job = await quick.ended(job_id)
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)


async def _running(site: Site, job_id: str) -> None:
    async def running() -> bool:
        return (await site.jobs.get(job_id)).status is JobState.RUNNING

    await eventually(running)


class LostLeaseQueue(MemoryJobQueue):
    """A queue that forgets its leases when told, as a broker does that was restarted."""

    lost = False

    def renew(self, token: str) -> "object":  # type: ignore[override]
        if self.lost:
            raise LeaseLost("forgotten")
        return super().renew(token)


async def test_a_lost_lease_stops_the_job_and_frees_it_for_the_next_worker(
    memory_site: Site,
) -> None:
    """Guards what `Renewal.run` (worker/renewal.py) does about `LeaseLost`.

    (Removing it makes this fail; tried.)
    """
    queue = LostLeaseQueue(lease_seconds=5, max_delivery_count=3)
    site = memory_site.changed(queue=queue, renew_seconds=0.05, pace=BLIND)
    engine = CountingEngine(step_seconds=0.02)
    job_id = await site.submit(num_inference_steps=10_000)
    queue.lost = True
    async with site.worker(engine):

        async def freed() -> bool:
            job = await site.jobs.get(job_id)
            return (job.status, job.attempts) == (JobState.NOT_STARTED, 1)

        await eventually(freed)
    assert engine.steps < 10_000
    assert not await site.has_image(job_id)


class SilentLease(Lease):
    """A lease of a queue that cannot be reached."""

    def __init__(self, site: Site, seconds: float) -> None:
        self.message_id, self.body, self.properties = "m", b"", {}
        self.delivery_count = 1
        self.expires_at = site.clock.now() + timedelta(seconds=seconds)
        self.renewals = 0

    async def renew(self) -> "object":  # type: ignore[override]
        self.renewals += 1
        raise QueueUnavailable("no answer")

    async def complete(self) -> None: ...
    async def abandon(self, *, delay_seconds: float = 0.0, counted: bool = True) -> None: ...
    async def dead_letter(self, reason: str, description: str) -> None: ...


async def test_renewals_that_fail_past_the_end_of_the_lease_stop_the_job(
    memory_site: Site,
) -> None:
    lease, stop = SilentLease(memory_site, seconds=0.3), StopSignal()
    async with beside(Renewal(lease, stop, memory_site.clock, renew_seconds=0.1).run(), "renew"):
        async with asyncio.timeout(5):
            reason = await stop.wait()
    assert isinstance(reason, LeaseLost)
    assert memory_site.clock.now() >= lease.expires_at
    assert lease.renewals > 2


async def test_of_two_claims_of_one_job_only_one_succeeds(site: Site) -> None:
    job_id = await site.submit()
    refused: list[str] = []

    async def try_to_take() -> Claim | None:
        def may_start(job: Job) -> None:
            if job.status is JobState.RUNNING:
                refused.append(job.id)
                raise LookupError

        try:
            return await take(site.jobs, job_id, site.clock, 60, may_start)
        except LookupError:
            return None

    claims = await asyncio.gather(*(try_to_take() for _ in range(8)))
    assert len([held for held in claims if held is not None]) == 1
    assert len(refused) == 7


@pytest.mark.parametrize("reason", [LeaseLost("first"), ValueError("first")])
async def test_the_first_reason_to_stop_stays(reason: Exception) -> None:
    stop = StopSignal()
    stop.set(reason)
    stop.set(LeaseLost("second"))
    assert stop.reason is reason
    with pytest.raises(type(reason), match="first"):
        stop.check()
