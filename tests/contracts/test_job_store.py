"""What `darkroom.jobstores.base` promises, asked of every adapter."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from darkroom.errors import IdempotencyKeyReused, InvalidInput, JobNotFound, VersionConflict
from darkroom.jobs import (
    Job,
    JobError,
    JobState,
    claim,
    fail,
    mark_sent,
    mark_webhook,
    new_job_id,
    request_cancel,
)
from darkroom.jobstores.base import IDEMPOTENCY_LIFETIME, Idempotency, JobFilter, JobStore
from darkroom.webhooks import Webhook, WebhookState
from tests.contracts.adapters import JobStores
from tests.samples import make_generation, make_job

KEY = Idempotency(key="order-17", fingerprint="a" * 64)


def fresh(stores: JobStores, **fields: object) -> Job:
    return make_job(**{"created_at": stores.now(), **fields})


async def walk(
    store: JobStore, tenant: str, filters: JobFilter, limit: int, most_pages: int = 1_000
) -> list[Job]:
    """Follow the cursors to the end; pages may be short."""
    jobs: list[Job] = []
    cursor = None
    for _ in range(most_pages):
        page = await store.list(tenant, filters, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        jobs.extend(page.jobs)
        cursor = page.next_cursor
        if cursor is None:
            return jobs
    raise AssertionError("the list has no end")


async def test_what_was_created_is_read_back_by_anybody(stores: JobStores) -> None:
    job = fresh(
        stores,
        generation=make_generation(prompt='a "quoted" café ☕\n', guidance_scale=0.1 + 0.2),
        tags={"team": "sky", "run": "7"},
        deadline_at=stores.now() + timedelta(microseconds=1),
    )
    created = await stores.store.create(job)
    assert created.is_new
    assert created.job.version
    read = await stores.other.get(job.id)
    assert read == created.job
    assert read == job.model_copy(update={"version": created.job.version})


async def test_a_job_that_does_not_exist_is_not_found(stores: JobStores) -> None:
    nobody = fresh(stores)
    with pytest.raises(JobNotFound):
        await stores.store.get(nobody.id)
    with pytest.raises(JobNotFound):
        await stores.store.compare_and_set(nobody, "1")
    with pytest.raises(JobNotFound):
        await stores.store.get("no-such-job")


async def test_a_second_job_of_the_same_id_is_refused(stores: JobStores) -> None:
    job = fresh(stores)
    await stores.store.create(job)
    with pytest.raises(VersionConflict):
        await stores.other.create(job)


async def test_every_write_changes_the_version_and_is_read_at_once(stores: JobStores) -> None:
    job = (await stores.store.create(fresh(stores))).job
    versions = {job.version}
    for _ in range(5):
        job = await stores.store.compare_and_set(claim(job, stores.now(), 60), job.version)
        versions.add(job.version)
        assert await stores.other.get(job.id) == job
    assert len(versions) == 6
    assert job.attempts == 5


async def test_a_write_on_an_old_version_changes_nothing(stores: JobStores) -> None:
    old = (await stores.store.create(fresh(stores))).job
    new = await stores.store.compare_and_set(claim(old, stores.now(), 60), old.version)
    for expected in (old.version, "", "nonsense", "9" * 40):
        with pytest.raises(VersionConflict):
            await stores.store.compare_and_set(request_cancel(old, stores.now()), expected)
    assert await stores.store.get(old.id) == new


async def test_of_many_writers_of_one_version_one_wins(stores: JobStores) -> None:
    job = (await stores.store.create(fresh(stores))).job

    async def write(index: int) -> Job:
        store = (stores.store, stores.other)[index % 2]
        return await store.compare_and_set(
            job.model_copy(update={"tags": {"writer": str(index)}}), job.version
        )

    results = await asyncio.gather(*(write(index) for index in range(20)), return_exceptions=True)
    (winner,) = (result for result in results if isinstance(result, Job))
    assert sum(isinstance(result, VersionConflict) for result in results) == 19
    assert await stores.store.get(job.id) == winner


async def test_a_key_gives_its_job_back(stores: JobStores) -> None:
    first = await stores.store.create(fresh(stores), KEY)
    changed = await stores.store.compare_and_set(
        claim(first.job, stores.now(), 60), first.job.version
    )
    again = await stores.other.create(fresh(stores), KEY)
    assert first.is_new
    assert not again.is_new
    assert again.job == changed, "the record as it is now, not as it was made"
    assert len(await walk(stores.store, "acme", JobFilter(), 100)) == 1


async def test_a_key_with_another_body_is_refused(stores: JobStores) -> None:
    await stores.store.create(fresh(stores), KEY)
    other = fresh(stores)
    with pytest.raises(IdempotencyKeyReused):
        await stores.other.create(other, Idempotency(KEY.key, "b" * 64))
    with pytest.raises(JobNotFound):
        await stores.store.get(other.id)


async def test_keys_belong_to_their_tenant(stores: JobStores) -> None:
    first = await stores.store.create(fresh(stores, tenant="acme"), KEY)
    second = await stores.store.create(fresh(stores, tenant="umbrella"), KEY)
    assert second.is_new
    assert second.job.id != first.job.id


async def test_a_key_lives_its_time_and_no_longer(stores: JobStores) -> None:
    if stores.advance is None:
        pytest.skip("this store's idempotency keys cannot be made to age")
    first = await stores.store.create(fresh(stores), KEY)
    await stores.advance(IDEMPOTENCY_LIFETIME.total_seconds() - 1)
    assert not (await stores.store.create(fresh(stores), KEY)).is_new
    await stores.advance(2)
    second = await stores.store.create(fresh(stores), Idempotency(KEY.key, "b" * 64))
    assert second.is_new
    assert second.job.id != first.job.id
    again = await stores.other.create(fresh(stores), Idempotency(KEY.key, "b" * 64))
    assert again.job == second.job


async def test_twenty_creates_with_one_key_make_one_job(stores: JobStores) -> None:
    results = await asyncio.gather(
        *((stores.store, stores.other)[n % 2].create(fresh(stores), KEY) for n in range(20))
    )
    assert sum(result.is_new for result in results) == 1
    assert len({result.job.id for result in results}) == 1
    assert len(await walk(stores.store, "acme", JobFilter(), 100)) == 1


async def test_a_refused_create_leaves_its_key_free(stores: JobStores) -> None:
    job = fresh(stores)
    await stores.store.create(job)
    with pytest.raises(VersionConflict):
        await stores.store.create(job, KEY)
    assert (await stores.store.create(fresh(stores), KEY)).is_new


async def test_a_list_is_the_tenants_own_newest_first(stores: JobStores) -> None:
    mine = [(await stores.store.create(fresh(stores, tenant="acme"))).job for _ in range(3)]
    await stores.store.create(fresh(stores, tenant="umbrella"))
    page = await stores.other.list("acme", JobFilter())
    assert list(page.jobs) == sorted(mine, key=lambda job: job.id, reverse=True)
    assert page.next_cursor is None
    assert list((await stores.store.list("nobody", JobFilter())).jobs) == []


async def test_a_job_created_between_pages_disturbs_nothing(stores: JobStores) -> None:
    old = [(await stores.store.create(fresh(stores))).job.id for _ in range(6)]
    first = await stores.store.list("acme", JobFilter(), limit=3)
    await stores.store.create(fresh(stores))
    second = await stores.store.list("acme", JobFilter(), limit=3, cursor=first.next_cursor)
    seen = [job.id for job in (*first.jobs, *second.jobs)]
    assert seen == sorted(old, reverse=True)


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "YWZ0ZXI6", "0" * 5_000, "ünïcode", "\x00"])
async def test_a_made_up_cursor_is_refused_by_name(stores: JobStores, cursor: str) -> None:
    await stores.store.create(fresh(stores))
    with pytest.raises(InvalidInput) as refused:
        await stores.store.list("acme", JobFilter(), cursor=cursor)
    assert refused.value.target == "cursor"


async def populate(stores: JobStores) -> list[Job]:
    chance = random.Random(17)
    jobs = []
    for index in range(stores.many):
        tenant = chance.choice(["acme", "acme", "umbrella"])
        job = make_job(
            id=new_job_id("local", tenant),
            tenant=tenant,
            created_at=stores.now() + timedelta(seconds=index),
            generation=make_generation(model=chance.choice(["demo", "turbo", "large"])),
            tags={"team": chance.choice(["sky", "sea"])} if chance.random() < 0.5 else {},
        )
        if chance.random() < 0.3:
            job = fail(job, job.created_at, JobError(code="GenerationFailed", message="It broke."))
        elif chance.random() < 0.5:
            job = claim(mark_sent(job, job.created_at), job.created_at, 60)
        jobs.append(job)
    for start in range(0, len(jobs), 50):
        batch = jobs[start : start + 50]
        created = await asyncio.gather(*(stores.store.create(job) for job in batch))
        jobs[start : start + 50] = [each.job for each in created]
    return jobs


async def test_pages_with_filters_equal_a_search_of_everything(stores: JobStores) -> None:
    jobs = await populate(stores)
    middle = jobs[len(jobs) // 2].created_at
    conditions: dict[str, tuple[JobFilter, Callable[[Job], bool]]] = {
        "none": (JobFilter(), lambda job: True),
        "status": (
            JobFilter(status=JobState.FAILED),
            lambda job: job.status is JobState.FAILED,
        ),
        "model": (JobFilter(model="turbo"), lambda job: job.generation.model == "turbo"),
        "age": (JobFilter(created_after=middle), lambda job: job.created_at > middle),
        "tag": (JobFilter(tag=("team", "sky")), lambda job: job.tags.get("team") == "sky"),
        "no such": (JobFilter(model="none"), lambda job: False),
        "all": (
            JobFilter(JobState.RUNNING, "demo", middle, ("team", "sea")),
            lambda job: (
                job.status is JobState.RUNNING
                and job.generation.model == "demo"
                and job.created_at > middle
                and job.tags.get("team") == "sea"
            ),
        ),
    }
    for tenant in ("acme", "umbrella"):
        for name, (filters, passes) in conditions.items():
            expected = sorted(
                (job for job in jobs if job.tenant == tenant and passes(job)),
                key=lambda job: job.id,
                reverse=True,
            )
            for limit in (7, 100):
                found = await walk(stores.other, tenant, filters, limit)
                assert found == expected, f"{tenant}, filter {name}, limit {limit}"


async def test_a_job_that_changes_moves_between_the_lists(stores: JobStores) -> None:
    before = stores.now() + timedelta(seconds=60)
    job = (await stores.store.create(fresh(stores))).job
    waiting, canceled = JobFilter(status=JobState.NOT_STARTED), JobFilter(status=JobState.CANCELED)
    assert await walk(stores.store, "acme", waiting, 10) == [job]
    assert await walk(stores.store, "acme", canceled, 10) == []
    assert list(await stores.store.unsent(before)) == [job]
    job = await stores.store.compare_and_set(request_cancel(job, stores.now()), job.version)
    assert await walk(stores.other, "acme", waiting, 10) == []
    assert await walk(stores.other, "acme", canceled, 10) == [job]
    assert list(await stores.other.unsent(before)) == []


async def test_the_sweeper_finds_what_was_never_sent(stores: JobStores) -> None:
    def at(age: int) -> Job:
        return make_job(created_at=stores.now() - timedelta(seconds=age))

    older, oldest, young = at(200), at(300), at(1)  # ids do not sort by age here
    sent = mark_sent(at(250), stores.now())
    running = claim(at(240), stores.now(), 60)
    canceled = request_cancel(at(230), stores.now())
    for job in (older, young, sent, oldest, running, canceled):
        await stores.store.create(job)
    before = stores.now() - timedelta(seconds=60)
    assert [job.id for job in await stores.other.unsent(before)] == [oldest.id, older.id]
    assert [job.id for job in await stores.other.unsent(before, limit=1)] == [oldest.id]
    assert [job.id for job in await stores.other.unsent(before, 1, older.created_at)] == [older.id]
    after = older.created_at + timedelta(microseconds=1)
    assert list(await stores.other.unsent(before, 1, after)) == []
    (found, _) = await stores.store.unsent(before)
    await stores.store.compare_and_set(mark_sent(found, stores.now()), found.version)
    assert [job.id for job in await stores.store.unsent(before)] == [older.id]


async def test_an_end_waits_to_be_told_until_somebody_says_it_was(stores: JobStores) -> None:
    hook = Webhook(url="https://hooks.example.com/x")
    told = (await stores.store.create(fresh(stores, webhook=hook))).job
    silent = (await stores.store.create(fresh(stores))).job
    unsent = await stores.store.unsent(stores.now() + timedelta(seconds=9))
    assert {job.id for job in unsent} >= {told.id, silent.id}
    ended = await stores.store.compare_and_set(request_cancel(told, stores.now()), told.version)
    await stores.store.compare_and_set(request_cancel(silent, stores.now()), silent.version)
    soon = stores.now() + timedelta(seconds=1)
    assert [job.id for job in await stores.other.unannounced(soon)] == [told.id]
    assert await stores.other.unannounced(stores.now()) == []
    assert [job.id for job in await stores.other.unannounced(soon)] == [told.id]
    found = (await stores.other.unannounced(soon))[0]
    assert found == ended
    marked = mark_webhook(found, stores.now(), WebhookState.QUEUED)
    written = await stores.other.compare_and_set(marked, found.version)
    assert await stores.store.unannounced(soon) == []
    assert (await stores.store.get(told.id)) == written
    with pytest.raises(VersionConflict):
        await stores.store.compare_and_set(marked, found.version)


async def test_an_unwanted_end_is_not_told(stores: JobStores) -> None:
    hook = Webhook(url="https://hooks.example.com/x", events=("job.succeeded",))
    job = (await stores.store.create(fresh(stores, webhook=hook))).job
    await stores.store.compare_and_set(request_cancel(job, stores.now()), job.version)
    assert await stores.store.unannounced(stores.now() + timedelta(seconds=1)) == []


async def test_ends_to_be_told_come_oldest_first(stores: JobStores) -> None:
    hook, ids = Webhook(url="https://hooks.example.com/x"), []
    for index in range(5):
        job = (await stores.store.create(fresh(stores, webhook=hook, tenant=f"t{index}"))).job
        ended_at = stores.now() + timedelta(seconds=index)
        await stores.store.compare_and_set(request_cancel(job, ended_at), job.version)
        ids.append(job.id)
    later = stores.now() + timedelta(seconds=60)
    assert [job.id for job in await stores.store.unannounced(later, 3)] == ids[:3]
