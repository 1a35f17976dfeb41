"""Running a failed or canceled job again: a new job, one and the same however often it is asked."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from darkroom.clock import FakeClock
from darkroom.errors import StoreUnavailable
from darkroom.imagestores.base import INPUT_IMAGE, INPUT_MASK
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobstores.base import IDEMPOTENCY_LIFETIME
from darkroom.jobstores.sqlite import SCHEMA, SqliteJobStore
from darkroom.sqlite import Database
from tests.api.floor import break_down, floor
from tests.api.stack import BASE, Stack, base64_picture, open_stack


async def canceled(stack: Stack, **fields: Any) -> dict[str, Any]:
    job = await stack.submit(**fields)
    await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    return job


async def test_a_failed_job_runs_again_with_the_same_input(stack: Stack, tmp_path: Path) -> None:
    site = floor(stack, tmp_path)
    old = await break_down(stack, site, tags={"set": "a"})
    answer = await stack.http.post(f"/v1/jobs/{old}:resubmit")
    assert answer.status_code == 202, answer.text
    new = answer.json()
    assert new["id"] != old
    assert new["resubmitted_from"] == old
    assert answer.headers["operation-location"] == f"{BASE}/v1/jobs/{new['id']}"
    assert "retry-after" in answer.headers
    before = (await stack.http.get(f"/v1/jobs/{old}")).json()
    assert (new["input"], new["tags"]) == (before["input"], {"set": "a"})
    assert (before["status"], before["resubmitted_from"]) == ("Failed", None)
    async with site.worker():
        assert (await site.ended(new["id"])).status == "Succeeded"


async def test_asking_twice_gives_the_same_job_and_one_message(stack: Stack) -> None:
    old = await canceled(stack)
    await stack.messages()
    path = f"/v1/jobs/{old['id']}:resubmit"
    answers = await asyncio.gather(*(stack.http.post(path) for _ in range(10)))
    ids = {answer.json()["id"] for answer in answers}
    assert len(ids) == 1
    assert await stack.messages() == [*ids]
    assert len((await stack.http.get("/v1/jobs")).json()["value"]) == 2


async def test_processes_of_one_machine_agree_on_the_new_job(tmp_path: Path) -> None:
    stores = [
        SqliteJobStore(Database(tmp_path / "jobs.db", SCHEMA, StoreUnavailable), FakeClock())
        for _ in range(2)
    ]
    async with open_stack(jobs=stores[0]) as one, open_stack(jobs=stores[1]) as other:
        old = await canceled(one)
        path = f"/v1/jobs/{old['id']}:resubmit"
        first, second = await asyncio.gather(one.http.post(path), other.http.post(path))
        assert first.json()["id"] == second.json()["id"]
    for store in stores:
        await store.close()


async def test_after_a_day_the_answer_is_another_job(stack: Stack) -> None:
    old = await canceled(stack)
    path = f"/v1/jobs/{old['id']}:resubmit"
    first = (await stack.http.post(path)).json()["id"]
    stack.clock.advance(IDEMPOTENCY_LIFETIME.total_seconds() + 1)
    assert (await stack.http.post(path)).json()["id"] != first


async def test_no_key_of_a_caller_meets_that_of_a_resubmit(stack: Stack) -> None:
    old = await canceled(stack)
    for key in (f"resubmit {old['id']}", f'"resubmit {old["id"]}"', old["id"]):
        await stack.http.post(
            "/v1/jobs", json={"prompt": "another"}, headers={"idempotency-key": key}
        )
    answer = await stack.http.post(f"/v1/jobs/{old['id']}:resubmit")
    assert answer.status_code == 202
    assert answer.json()["resubmitted_from"] == old["id"]


async def test_input_pictures_come_along(stack: Stack) -> None:
    pictures = {
        "image": base64_picture(color="red"),
        "mask_image": base64_picture(color="white", mode="L"),
    }
    old = await canceled(stack, **pictures)
    new = (await stack.http.post(f"/v1/jobs/{old['id']}:resubmit")).json()
    images = stack.state.images
    for name in (INPUT_IMAGE, INPUT_MASK):
        assert await images.get(new["id"], name) == await images.get(old["id"], name)
    assert new["input"]["image"] == old["input"]["image"]


async def test_a_repeated_ask_leaves_no_pictures_behind() -> None:
    class Counting(MemoryImageStore):
        def folders(self) -> set[str]:
            return set(self._jobs)

    images = Counting()
    async with open_stack(images=images) as stack:
        old = await canceled(stack, image=base64_picture())
        for _ in range(3):
            new = (await stack.http.post(f"/v1/jobs/{old['id']}:resubmit")).json()
        assert images.folders() == {old["id"], new["id"]}


async def test_the_new_deadline_is_as_long_as_the_old_one_was(stack: Stack) -> None:
    old = await canceled(stack, deadline_seconds=100)
    stack.clock.advance(1_000)
    new = (await stack.http.post(f"/v1/jobs/{old['id']}:resubmit")).json()
    left = datetime.fromisoformat(new["deadline_at"]) - stack.clock.now()
    assert left.total_seconds() == 100


@pytest.mark.parametrize("running", [False, True])
async def test_a_job_that_has_not_ended_is_refused(stack: Stack, running: bool) -> None:
    job = await stack.submit()
    if running:
        await stack.begin(job["id"])
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:resubmit")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (409, "JobNotFinished")


async def test_a_job_that_has_its_pictures_is_refused(stack: Stack) -> None:
    job = await stack.submit()
    await stack.begin(job["id"])
    await stack.finish(job["id"])
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:resubmit")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (409, "JobSucceeded")


async def test_an_erased_job_is_refused(stack: Stack) -> None:
    job = await canceled(stack)
    await stack.http.delete(f"/v1/jobs/{job['id']}")
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:resubmit")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (409, "JobErased")
    assert len((await stack.http.get("/v1/jobs")).json()["value"]) == 1


async def test_nobody_resubmits_what_is_not_his(stack: Stack) -> None:
    job = await canceled(stack)
    record = await stack.state.jobs.get(job["id"])
    theirs = record.model_copy(update={"tenant": "another"})
    await stack.state.jobs.compare_and_set(theirs, record.version)
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:resubmit")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (404, "JobNotFound")
    assert (await stack.http.delete(f"/v1/jobs/{job['id']}")).status_code == 404
