"""Erasing: what was asked and what came of it go for good, the accounting stays."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from darkroom.errors import ImageNotFound, StoreUnavailable
from darkroom.imagestores.base import INPUT_IMAGE, output_name
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import cancel
from darkroom.jobstores.sqlite import SCHEMA, SqliteJobStore
from darkroom.sqlite import Database
from tests.api.floor import floor
from tests.api.stack import PROMPT, Stack, base64_picture, open_stack
from tests.worker.site import eventually
from worker.engines.fake import FakeEngine


async def finished(stack: Stack, **fields: Any) -> str:
    job_id: str = (await stack.submit(**fields))["id"]
    await stack.begin(job_id)
    await stack.finish(job_id)
    return job_id


async def test_prompt_and_pictures_go_and_the_accounting_stays(stack: Stack) -> None:
    fields = {"negative_prompt": "blurred towers", "tags": {"set": "a"}, "seed": 7}
    job_id = await finished(stack, image=base64_picture(), **fields)
    before = (await stack.http.get(f"/v1/jobs/{job_id}")).json()
    answer = await stack.http.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    read = await stack.http.get(f"/v1/jobs/{job_id}")
    after = read.json()
    assert PROMPT not in read.text
    assert "blurred" not in read.text
    assert before["input"]["image"]["sha256"] not in read.text
    assert before["images"][0]["sha256"] not in read.text
    assert after["erased_at"] is not None
    assert (after["input"]["prompt"], after["images"]) == ("", [])
    kept = ("status", "usage", "tags", "model", "created_at", "finished_at", "provenance", "step")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    for name in (output_name(0), INPUT_IMAGE):
        with pytest.raises(ImageNotFound):
            await stack.state.images.get(job_id, name)
    gone = await stack.http.get(f"/v1/jobs/{job_id}/images/0")
    assert (gone.status_code, gone.headers["x-ms-error-code"]) == (404, "ImageNotFound")


async def test_again_changes_nothing(stack: Stack) -> None:
    job_id = await finished(stack)
    await stack.http.delete(f"/v1/jobs/{job_id}")
    first = await stack.http.get(f"/v1/jobs/{job_id}")
    stack.clock.advance(10)
    assert (await stack.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
    again = await stack.http.get(f"/v1/jobs/{job_id}")
    assert (again.json(), again.headers["etag"]) == (first.json(), first.headers["etag"])


async def test_of_many_at_once_each_is_told_that_it_is_done(stack: Stack) -> None:
    job_id = await finished(stack)
    path = f"/v1/jobs/{job_id}"
    answers = await asyncio.gather(*(stack.http.delete(path) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {204}
    assert (await stack.state.jobs.get(job_id)).erased_at is not None


@pytest.mark.parametrize("running", [False, True])
async def test_a_job_that_has_not_ended_is_to_be_canceled_first(
    stack: Stack, running: bool
) -> None:
    job_id = (await stack.submit(image=base64_picture()))["id"]
    if running:
        await stack.begin(job_id)
    answer = await stack.http.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (409, "JobNotFinished")
    assert "cancel" in answer.json()["error"]["message"]
    assert (await stack.state.jobs.get(job_id)).generation.prompt == PROMPT
    assert await stack.state.images.get(job_id, INPUT_IMAGE)


async def test_while_the_pictures_cannot_be_deleted_the_record_does_not_say_erased() -> None:
    class Away(MemoryImageStore):
        away = True

        async def delete(self, job_id: str) -> None:
            if self.away:
                raise StoreUnavailable("the image folder: Input/output error")
            await super().delete(job_id)

    images = Away()
    async with open_stack(images=images) as stack:
        job_id = await finished(stack)
        assert (await stack.http.delete(f"/v1/jobs/{job_id}")).status_code == 503
        assert (await stack.state.jobs.get(job_id)).erased_at is None
        images.away = False
        assert (await stack.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
        assert (await stack.state.jobs.get(job_id)).erased_at is not None


async def test_nothing_is_left_in_the_records_and_folders_of_one_machine(tmp_path: Path) -> None:
    store = SqliteJobStore(Database(tmp_path / "jobs.db", SCHEMA, StoreUnavailable))
    images = FilesystemImageStore(tmp_path / "images")
    async with open_stack(jobs=store, images=images) as stack:
        job_id = await finished(stack, image=base64_picture())
        folder = tmp_path / "images" / job_id
        assert len(list(folder.glob("*.png"))) == 2
        await stack.http.delete(f"/v1/jobs/{job_id}")
        assert not folder.exists()
        assert PROMPT not in (await store.get(job_id)).model_dump_json()
    await store.close()


class Freezing(FakeEngine):
    """An engine that stands still with its pictures made, until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.go_on = threading.Event(), threading.Event()

    def generate(self, batch: Any, on_step: Any) -> Any:
        made = super().generate(batch, on_step)
        self.frozen.set()
        assert self.go_on.wait(30)
        return made


async def test_a_worker_that_wakes_after_the_erase_brings_nothing_back(
    stack: Stack, tmp_path: Path
) -> None:
    """Fails without the report to the record that `Runner` makes before it stores (tried)."""
    engine = Freezing()
    site = floor(stack, tmp_path).changed(renew_seconds=60)  # no renewal tells it in between
    job_id = (await stack.submit(width=64, height=64, num_inference_steps=1))["id"]
    async with site.worker(engine):
        try:
            assert await asyncio.to_thread(engine.frozen.wait, 30)
            await site.write(job_id, lambda job: cancel(job, stack.clock.now()))
            assert (await stack.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
        finally:
            engine.go_on.set()
        await site.settled()
    job = await stack.state.jobs.get(job_id)
    assert (job.status, job.images, job.generation.prompt) == ("Canceled", (), "")
    assert not await site.has_image(job_id)


async def test_what_a_late_write_left_is_shown_to_nobody_and_goes_with_another_erase(
    stack: Stack,
) -> None:
    job_id = await finished(stack)
    await stack.http.delete(f"/v1/jobs/{job_id}")
    await stack.state.images.put(job_id, output_name(0), b"late", attempt=1)
    assert (await stack.http.get(f"/v1/jobs/{job_id}/images/0")).status_code == 404
    assert (await stack.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
    with pytest.raises(ImageNotFound):
        await stack.state.images.get(job_id, output_name(0))


async def test_who_waits_for_a_change_is_told(stack: Stack) -> None:
    job_id = await finished(stack)
    seen = (await stack.http.get(f"/v1/jobs/{job_id}")).headers["etag"]
    await stack.http.delete(f"/v1/jobs/{job_id}")

    async def told() -> bool:
        headers = {"if-none-match": seen}
        answer = await stack.http.get(f"/v1/jobs/{job_id}", headers=headers)
        return answer.status_code == 200 and answer.json()["erased_at"] is not None

    await eventually(told)
