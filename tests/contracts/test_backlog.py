"""What a job store says of who waits: the ground for caps, positions and ETAs."""

from datetime import timedelta

import pytest

from darkroom.jobs import JobError, claim, fail, mark_sent, release, request_cancel
from darkroom.jobstores.base import Backlog
from tests.contracts.adapters import JobStores
from tests.samples import make_job


async def test_a_backlog_counts_one_tenants_waiting_jobs_in_every_pool(stores: JobStores) -> None:
    assert await stores.store.backlog("acme") == Backlog(0, 0)
    for tenant, pool in (("acme", "short"), ("acme", "long"), ("umbrella", "short")):
        job = make_job(
            tenant=tenant, pool=pool, created_at=stores.now(), estimated_gpu_seconds=1.25
        )
        await stores.store.create(job)
    assert await stores.other.backlog("acme") == Backlog(2, 2.5)
    assert await stores.other.backlog("umbrella") == Backlog(1, 1.25)


async def test_a_job_counts_exactly_while_it_waits(stores: JobStores) -> None:
    store, now = stores.store, stores.now()
    job = (await store.create(make_job(created_at=now, estimated_gpu_seconds=2))).job
    job = await store.compare_and_set(mark_sent(job, now), job.version)
    assert await store.backlog("acme") == Backlog(1, 2)
    job = await store.compare_and_set(claim(job, now, 60), job.version)
    assert await store.backlog("acme") == Backlog(0, 0)
    job = await store.compare_and_set(release(job, 1, now), job.version)
    assert await store.backlog("acme") == Backlog(1, 2), "given back: it waits again"
    failed = fail(job, now, JobError(code="DeadlineExceeded", message="late"))
    await store.compare_and_set(failed, job.version)
    assert await store.backlog("acme") == Backlog(0, 0)
    other = (await store.create(make_job(created_at=now))).job
    await store.compare_and_set(request_cancel(other, now), other.version)
    assert await store.backlog("acme") == Backlog(0, 0)


async def test_a_line_is_a_pools_waiting_jobs_oldest_first(stores: JobStores) -> None:
    ages = {5: 1.0, 30: 2.0, 10: 3.0, 20: 4.0}
    made = {}
    for age, gpu_seconds in ages.items():
        job = make_job(
            tenant=f"tenant-{age}",
            created_at=stores.now() - timedelta(seconds=age),
            estimated_gpu_seconds=gpu_seconds,
        )
        made[age] = (await stores.store.create(job)).job
    await stores.store.create(make_job(pool="long", created_at=stores.now()))
    line = await stores.other.line("short", 10)
    if line is None:
        pytest.skip("this store does not list a pool's line")
    assert [one.job_id for one in line] == [made[age].id for age in (30, 20, 10, 5)]
    assert [one.gpu_seconds for one in line] == [2, 4, 3, 1]
    assert line[0].created_at == pytest.approx(made[30].created_at.timestamp())
    begun = made[30]
    await stores.store.compare_and_set(claim(begun, stores.now(), 60), begun.version)
    short = await stores.other.line("short", 2)
    assert short is not None
    assert [one.job_id for one in short] == [made[20].id, made[10].id]
