"""Cancelling: at once, by asking, never twice, and never against an end that came first."""

import asyncio
from collections import Counter
from pathlib import Path

from darkroom.errors import StoreUnavailable
from darkroom.jobs import Job
from darkroom.jobstores.sqlite import SCHEMA, SqliteJobStore
from darkroom.sqlite import Database
from tests.api.stack import Stack, open_stack

TRIES = 200


async def test_a_waiting_job_ends_at_once(stack: Stack) -> None:
    job = await stack.submit()
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert answer.status_code == 200
    assert answer.json()["status"] == "Canceled"
    assert answer.json()["finished_at"]
    assert "retry-after" not in answer.headers


async def test_a_running_job_is_asked_to_stop(stack: Stack) -> None:
    job = await stack.submit()
    await stack.begin(job["id"])
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert answer.json()["status"] == "Running"
    assert answer.json()["cancel_requested"] is True
    assert "retry-after" in answer.headers
    ended = await stack.finish(job["id"])
    assert ended.status == "Canceled"


async def test_again_changes_nothing(stack: Stack) -> None:
    job = await stack.submit()
    await stack.begin(job["id"])
    first = await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    again = await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert again.status_code == 200
    assert again.headers["etag"] == first.headers["etag"]
    assert again.json() == first.json()


async def test_a_finished_job_stays_as_it_is(stack: Stack) -> None:
    job = await stack.submit()
    await stack.begin(job["id"])
    await stack.finish(job["id"])
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert answer.status_code == 200
    assert answer.json()["status"] == "Succeeded"


class _Terminals(SqliteJobStore):
    """Counts the writes that end a job."""

    def __init__(self, path: Path) -> None:
        super().__init__(Database(path, SCHEMA, StoreUnavailable))
        self.ends: Counter[str] = Counter()

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        written = await super().compare_and_set(job, expected_version)
        self.ends[job.id] += written.status.is_terminal
        return written


async def test_cancel_against_completion_leaves_one_end_each(tmp_path: Path) -> None:
    store = _Terminals(tmp_path / "jobs.db")
    seen: Counter[str] = Counter()
    async with open_stack(jobs=store) as stack:
        for number in range(TRIES):
            job_id = (await stack.submit())["id"]
            await stack.begin(job_id)

            async def cancelling(job_id: str = job_id, late: int = number % 8) -> str:
                for _ in range(late):  # move the two against each other
                    await asyncio.sleep(0)
                answer = await stack.http.post(f"/v1/jobs/{job_id}:cancel")
                assert answer.status_code == 200
                return answer.json()["status"]

            told, ended = await asyncio.gather(cancelling(), stack.finish(job_id))
            stored = await store.get(job_id)
            assert stored.status == ended.status
            assert told in ("Running", str(stored.status))
            assert store.ends[job_id] == 1
            seen[stored.status] += 1
    await store.close()
    assert seen["Succeeded"] + seen["Canceled"] == TRIES
    assert min(seen.values()) > 0, f"a race that only one side wins is none: {seen}"
