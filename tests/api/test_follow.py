"""GET /v1/jobs/{id}: reading, entity tags, waiting."""

import asyncio
import time

import pytest

from api.watching import Watcher
from darkroom.errors import StoreUnavailable
from darkroom.jobs import Job, JobError, Phase, fail, report
from darkroom.jobstores.memory import MemoryJobStore
from tests.api.stack import Stack, open_stack
from tests.samples import make_job


async def _advance(stack: Stack, job_id: str, step: int) -> Job:
    job = await stack.state.jobs.get(job_id)
    moved = report(
        job, job.attempts, stack.clock.now(), phase=Phase.GENERATING, step=step, claim_seconds=60
    )
    return await stack.state.jobs.compare_and_set(moved, job.version)


async def test_a_job_shows_how_far_it_is(stack: Stack) -> None:
    job = await stack.submit()
    await stack.begin(job["id"])
    await _advance(stack, job["id"], 10)
    answer = await stack.http.get(f"/v1/jobs/{job['id']}")
    read = answer.json()
    assert (read["status"], read["phase"], read["step"]) == ("Running", "generating", 10)
    assert 0.4 < read["progress"] < 0.6
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_finished_job_has_pictures_usage_and_no_retry_after(stack: Stack) -> None:
    job = await stack.submit(seed=5)
    await stack.begin(job["id"])
    await stack.finish(job["id"])
    answer = await stack.http.get(f"/v1/jobs/{job['id']}")
    read = answer.json()
    assert "retry-after" not in answer.headers
    assert read["status"] == "Succeeded"
    assert read["progress"] == 1
    [image] = read["images"]
    assert image["url"] == f"http://darkroom.localhost/v1/jobs/{job['id']}/images/0"
    assert image["seed"] == 5
    assert read["usage"]["gpu_seconds"] == 1.5
    assert all(round(spent, 6) == spent for spent in read["usage"].values())
    assert read["provenance"]["model_revision"] == "1"
    assert read["finished_at"].endswith("Z")


async def test_a_failed_job_says_why(stack: Stack) -> None:
    job = await stack.submit()
    stored = await stack.state.jobs.get(job["id"])
    error = JobError(code="OutOfMemory", message="the device has too little memory")
    await stack.state.jobs.compare_and_set(fail(stored, stack.clock.now(), error), stored.version)
    read = (await stack.http.get(f"/v1/jobs/{job['id']}")).json()
    assert read["status"] == "Failed"
    assert read["error"] == {**error.model_dump()}


async def test_what_was_seen_before_is_not_sent_again(stack: Stack) -> None:
    job = await stack.submit()
    path = f"/v1/jobs/{job['id']}"
    tag = (await stack.http.get(path)).headers["etag"]
    for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        unchanged = await stack.http.get(path, headers={"if-none-match": sent})
        assert unchanged.status_code == 304
        assert unchanged.headers["etag"] == tag
        assert unchanged.content == b""
        assert "retry-after" in unchanged.headers
    await stack.begin(job["id"])
    changed = await stack.http.get(path, headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_a_wait_ends_with_the_job(stack: Stack) -> None:
    job = await stack.submit()
    waiting = asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}?wait=30"))
    await stack.begin(job["id"])
    await asyncio.sleep(0.05)
    assert not waiting.done(), "without an entity tag only the end is news"
    await stack.finish(job["id"])
    assert (await waiting).json()["status"] == "Succeeded"


async def test_a_wait_with_an_entity_tag_ends_with_any_change(stack: Stack) -> None:
    job = await stack.submit()
    path = f"/v1/jobs/{job['id']}"
    tag = (await stack.http.get(path)).headers["etag"]
    waiting = asyncio.create_task(stack.http.get(f"{path}?wait=30", headers={"if-none-match": tag}))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await stack.begin(job["id"])
    answer = await waiting
    assert answer.status_code == 200
    assert answer.json()["status"] == "Running"


async def test_a_wait_that_runs_out_answers_with_what_is_there(stack: Stack) -> None:
    job = await stack.submit()
    path = f"/v1/jobs/{job['id']}"
    began = time.monotonic()
    answer = await stack.http.get(f"{path}?wait=1")
    assert answer.status_code == 200
    assert answer.json()["status"] == "NotStarted"
    assert 0.9 <= time.monotonic() - began < 5
    same = await stack.http.get(f"{path}?wait=1", headers={"if-none-match": answer.headers["etag"]})
    assert same.status_code == 304


async def test_a_wait_for_a_finished_job_is_none(stack: Stack) -> None:
    job = await stack.submit()
    await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    began = time.monotonic()
    path = f"/v1/jobs/{job['id']}?wait=60"
    tag = (await stack.http.get(path)).headers["etag"]
    unchanged = await stack.http.get(path, headers={"if-none-match": tag})
    assert unchanged.status_code == 304
    assert time.monotonic() - began < 5


class _Counting(MemoryJobStore):
    reads = 0
    away = False

    async def get(self, job_id: str) -> Job:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        return await super().get(job_id)


async def test_a_hundred_who_wait_for_one_job_share_the_reads() -> None:
    store = _Counting()
    async with open_stack(jobs=store, watch_seconds=0.1) as stack:
        job = await stack.submit()
        waiting = [
            asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}?wait=30")) for _ in range(100)
        ]
        while store.reads < 100:
            await asyncio.sleep(0.01)
        before = store.reads
        await asyncio.sleep(1)
        assert store.reads - before <= 12
        await stack.begin(job["id"])
        await stack.finish(job["id"])
        answers = await asyncio.gather(*waiting)
        assert {answer.json()["status"] for answer in answers} == {"Succeeded"}
        read = store.reads
        await asyncio.sleep(0.3)
        assert store.reads == read, "nobody waits, nothing is read"


async def test_an_absent_store_does_not_end_a_wait() -> None:
    store = _Counting()
    async with open_stack(jobs=store) as stack:
        job = await stack.submit()
        waiting = asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}?wait=30"))
        await asyncio.sleep(0.05)
        store.away = True
        await asyncio.sleep(0.05)
        store.away = False
        await stack.begin(job["id"])
        await stack.finish(job["id"])
        assert (await waiting).json()["status"] == "Succeeded"


async def test_many_watched_jobs_share_what_may_be_read_in_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.watching.MAX_READS_PER_SECOND", 20)
    store = _Counting()
    watcher = Watcher(store, watch_seconds=0.001)
    jobs = [(await store.create(make_job())).job for _ in range(10)]
    began = time.monotonic()
    await asyncio.gather(*(watcher.wait(job, lambda _: False, 1.2) for job in jobs))
    assert 10 <= store.reads <= 20 * (time.monotonic() - began) + len(jobs)


async def test_a_cancel_in_this_process_wakes_at_once() -> None:
    async with open_stack(watch_seconds=10) as stack:
        job = await stack.submit()
        waiting = asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}?wait=30"))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        assert (await waiting).json()["status"] == "Canceled"
        assert time.monotonic() - began < 5


async def test_a_stop_lets_everybody_go(stack: Stack) -> None:
    job = await stack.submit()
    waiting = asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}?wait=60"))
    await asyncio.sleep(0.05)
    stack.state.watcher.close()
    assert (await asyncio.wait_for(waiting, 5)).json()["status"] == "NotStarted"


@pytest.mark.parametrize("suffix", ["", "?wait=1", "/images/0"])
async def test_another_tenants_job_is_404_like_no_job(stack: Stack, suffix: str) -> None:
    job = await stack.submit()
    stored = await stack.state.jobs.get(job["id"])
    await stack.state.jobs.compare_and_set(
        stored.model_copy(update={"tenant": "somebody-else"}), stored.version
    )
    foreign = await stack.http.get(f"/v1/jobs/{job['id']}{suffix}")
    missing = await stack.http.get(f"/v1/jobs/local-{'0' * 40}{suffix}")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json() == missing.json()
    canceled = await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert canceled.status_code == 404
    assert (await stack.state.jobs.get(job["id"])).status == "NotStarted"
