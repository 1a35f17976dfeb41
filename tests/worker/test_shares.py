"""Who pays for the engine's seconds, how calls shrink and grow, and when a batch will end."""

import math
import time

import pytest

from darkroom.jobs import JobState
from tests.worker.batching import OpeningEngine, all_ended, pool_of, submit_batch
from tests.worker.site import POOL, Site, eventually
from worker.batch_limits import CALM_CALLS, UNBOUNDED, BatchLimits
from worker.claims import Spent
from worker.metering import Meter
from worker.tempo import LONGEST_LEAD_SECONDS, SHORTEST_LEAD_SECONDS, Progress, Tempo

SIZE = ("demo", 64 * 64)


def _generated(site: Site) -> float:
    labels = {"pool": POOL, "doing": "generate"}
    value = site.metrics.registry.get_sample_value("darkroom_device_seconds_total", labels)
    return value or 0.0


async def test_a_call_is_paid_for_by_the_picture(memory_site: Site) -> None:
    site, engine = pool_of(memory_site, concurrency=8), OpeningEngine(step_seconds=0.05)
    async with site.worker(engine):
        ids = await submit_batch(site, engine, {"num_images": 3}, {"seed": 20}, {"seed": 21})
        three, one, other = [job.usage.gpu_seconds for job in await all_ended(site, ids)]
    assert engine.sizes == [5]
    assert one == pytest.approx(other, rel=0.01)
    assert three == pytest.approx(3 * one, rel=0.01)


async def test_the_bills_add_up_when_a_job_leaves_half_way(memory_site: Site) -> None:
    site, engine = pool_of(memory_site, concurrency=8), OpeningEngine(step_seconds=0.01)
    steps = {"num_inference_steps": 60}
    async with site.worker(engine):
        ids = await submit_batch(site, engine, {"seed": 1, **steps}, {"seed": 2, **steps})

        async def begun() -> bool:
            return len(engine.calls) == 1 and engine.steps >= 5

        await eventually(begun, every=0.001)
        before = _generated(site)  # of the job that held the gate
        await site.cancel(ids[0])
        left, stayed = await all_ended(site, ids)
        await site.settled()
        in_call = _generated(site) - before
    assert left.status is JobState.CANCELED
    assert 0 < left.usage.gpu_seconds < stayed.usage.gpu_seconds
    assert left.usage.gpu_seconds + stayed.usage.gpu_seconds == pytest.approx(in_call, rel=0.02)


def test_what_a_job_leaves_is_shared_by_those_that_stay() -> None:
    meter, one, other = Meter(), Spent(), Spent()
    started = time.perf_counter()
    with meter.running("generate", {"one": (one, 1), "other": (other, 3)}):
        time.sleep(0.04)
        meter.leave("one")
        time.sleep(0.02)
    elapsed = time.perf_counter() - started
    assert one.gpu_seconds + other.gpu_seconds == pytest.approx(elapsed, rel=0.05)
    assert 0.01 <= one.gpu_seconds < 0.02 + elapsed - 0.06
    assert one.load_seconds == other.load_seconds == 0


def test_a_call_that_did_not_fit_halves_the_limit_and_calm_raises_it_by_one() -> None:
    limits = BatchLimits()
    assert limits.limit(SIZE) == UNBOUNDED
    limits.failed(SIZE, 9)
    assert limits.limit(SIZE) == 4
    for _ in range(CALM_CALLS):
        assert limits.limit(SIZE) == 4
        limits.passed(SIZE, 4)
    assert limits.limit(SIZE) == 5
    assert limits.limit(("other", 64 * 64)) == UNBOUNDED


def test_small_calls_say_nothing_about_the_limit() -> None:
    limits = BatchLimits()
    limits.failed(SIZE, 8)
    for _ in range(2 * CALM_CALLS):
        limits.passed(SIZE, 3)
    assert limits.limit(SIZE) == 4


def test_the_limit_never_falls_below_one_picture() -> None:
    limits = BatchLimits()
    for pictures in (4, 2, 1, 1):
        limits.failed(SIZE, pictures)
    assert limits.limit(SIZE) == 1


def test_the_end_of_a_batch_is_told_from_its_steps() -> None:
    progress = Progress()
    progress.total = 4
    assert progress.remaining_seconds(10) == math.inf, "it has not begun"
    progress.begin()
    assert progress.remaining_seconds(10) == pytest.approx(10, abs=0.05)
    time.sleep(0.1)
    progress.note(2.0)
    assert progress.remaining_seconds(10) == pytest.approx(0.1, abs=0.05)
    progress.made(4)
    progress.note(0.0)
    assert progress.remaining_seconds(10) <= 0


def test_nothing_is_expected_of_batches_before_one_was_measured() -> None:
    tempo = Tempo()
    assert tempo.expected_seconds(5) == math.inf
    tempo.ran(estimate=10, seconds=5)
    assert tempo.expected_seconds(4) == 2


def test_the_lead_follows_how_long_the_next_batch_takes_within_bounds() -> None:
    tempo = Tempo()
    for _ in range(50):
        tempo.prepared(0.2)
    assert tempo.lead_seconds == pytest.approx(0.6, rel=0.01)
    for _ in range(50):
        tempo.prepared(60)
    assert tempo.lead_seconds == LONGEST_LEAD_SECONDS
    for _ in range(80):
        tempo.prepared(0)
    assert tempo.lead_seconds == SHORTEST_LEAD_SECONDS
