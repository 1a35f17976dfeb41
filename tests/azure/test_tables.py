"""What is special about job records in tables: rows, partitions, keys, versions."""

import hashlib
from datetime import timedelta
from itertools import count

import pytest

from darkroom.clock import FakeClock
from darkroom.errors import InvalidInput, VersionConflict
from darkroom.jobs import JobError, claim, fail, mark_sent, new_job_id, release, tenant_key
from darkroom.jobstores.azure_rows import PART_CHARACTERS
from darkroom.jobstores.azure_tables import PARTITIONS, AzureTablesJobStore
from darkroom.jobstores.base import Idempotency, JobFilter
from tests.azure.emulated import Azurite, fresh_name
from tests.samples import NOW, make_job


@pytest.fixture
async def store(azurite: Azurite):
    opened = azurite.job_store(fresh_name("jobs"), FakeClock(NOW + timedelta(hours=1)))
    yield opened
    await opened.close()


def two_tenants_with_one_key() -> tuple[str, str]:
    seen: dict[str, str] = {}
    for number in count():
        name = f"tenant{number}"
        key = hashlib.sha256(name.encode()).hexdigest()[:8]
        if key in seen:
            return seen[key], name
        seen[key] = name
    raise AssertionError


async def test_a_record_longer_than_a_property_is_split(store: AzureTablesJobStore) -> None:
    message = "é🌅" * (2 * PART_CHARACTERS)
    job = (await store.create(make_job())).job
    failed = fail(job, NOW, JobError(code="GenerationFailed", message=message))
    written = await store.compare_and_set(failed, job.version)
    assert await store.get(job.id) == written
    assert (await store.list("acme", JobFilter())).jobs == [written]
    short = written.model_copy(update={"error": None})
    assert await store.compare_and_set(short, written.version) == await store.get(job.id)


async def test_tenants_whose_keys_are_the_same_stay_apart(store: AzureTablesJobStore) -> None:
    first, second = two_tenants_with_one_key()
    assert tenant_key(first) == tenant_key(second)
    key = Idempotency("order-17", "a" * 64)
    mine = [(await store.create(make_job(tenant=first), key)).job]
    theirs = [(await store.create(make_job(tenant=second), key)).job]
    for _ in range(3):
        mine.append((await store.create(make_job(tenant=first))).job)
        theirs.append((await store.create(make_job(tenant=second))).job)
    for tenant, jobs in ((first, mine), (second, theirs)):
        page = await store.list(tenant, JobFilter(), limit=2)
        rest = await store.list(tenant, JobFilter(), cursor=page.next_cursor)
        assert [job.id for job in (*page.jobs, *rest.jobs)] == [job.id for job in reversed(jobs)]


async def test_an_id_that_was_not_made_for_its_tenant_is_refused(
    store: AzureTablesJobStore,
) -> None:
    for job_id in (new_job_id("local", "somebody else"), "job-1", "local-" + "g" * 40):
        with pytest.raises(InvalidInput) as refused:
            await store.create(make_job(id=job_id))
        assert refused.value.target == "id"


async def test_another_tenants_cursor_is_refused(store: AzureTablesJobStore) -> None:
    for _ in range(2):
        await store.create(make_job(tenant="umbrella"))
    page = await store.list("umbrella", JobFilter(), limit=1)
    with pytest.raises(InvalidInput) as refused:
        await store.list("acme", JobFilter(), cursor=page.next_cursor)
    assert refused.value.target == "cursor"


async def test_unsent_jobs_are_found_whoever_they_belong_to(store: AzureTablesJobStore) -> None:
    tenants = [f"tenant{number}" for number in range(24)]
    assert len({tenant_key(tenant)[0] for tenant in tenants}) > len(PARTITIONS) / 2
    jobs = [
        make_job(tenant=tenant, created_at=NOW + timedelta(seconds=index))
        for index, tenant in enumerate(tenants)
    ]
    for job in reversed(jobs):
        await store.create(job)
    found = await store.unsent(NOW + timedelta(hours=1))
    assert [job.id for job in found] == [job.id for job in jobs]


async def test_the_unsent_row_follows_the_record(store: AzureTablesJobStore) -> None:
    """It is there exactly while the job waits without a confirmed send, through every change."""
    later = NOW + timedelta(hours=1)
    job = (await store.create(make_job())).job
    assert [each.id for each in await store.unsent(later)] == [job.id]
    job = await store.compare_and_set(job.model_copy(update={"tags": {"a": "b"}}), job.version)
    assert [each.id for each in await store.unsent(later)] == [job.id]
    job = await store.compare_and_set(claim(job, NOW, 60), job.version)
    assert await store.unsent(later) == []
    given_back = release(job, job.attempts, NOW).model_copy(update={"sent_at": None})
    job = await store.compare_and_set(given_back, job.version)
    assert [each.id for each in await store.unsent(later)] == [job.id]
    job = await store.compare_and_set(mark_sent(job, NOW), job.version)
    assert await store.unsent(later) == []


async def test_a_refused_write_leaves_the_unsent_row(store: AzureTablesJobStore) -> None:
    job = (await store.create(make_job())).job
    newer = await store.compare_and_set(job.model_copy(update={"tags": {"a": "b"}}), job.version)
    with pytest.raises(VersionConflict):
        await store.compare_and_set(mark_sent(job, NOW), job.version)
    assert [each.version for each in await store.unsent(NOW + timedelta(hours=1))] == [
        newer.version
    ]
