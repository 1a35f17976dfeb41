"""Small pictures of a job while it runs, for those who asked for them."""

import asyncio
import io
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image

from darkroom.errors import ImageNotFound, StoreUnavailable
from darkroom.imagestores.base import PREVIEW, ImageStore
from darkroom.jobs import Job, JobState
from darkroom.messages import message_for
from tests.samples import make_generation, make_job
from tests.worker.site import Site
from worker.engines.base import GenerationTask, OnStep
from worker.engines.fake import FakeEngine


class Waiting(FakeEngine):
    """Goes no further than the step that it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = asyncio.Semaphore(0)
        self.loop = asyncio.get_running_loop()
        self.decoded = 0

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image.Image]]:
        def gated(step: int, total: int, preview: Any) -> None:
            def counted() -> list[Image.Image]:
                self.decoded += 1
                pictures: list[Image.Image] = preview()
                return pictures

            on_step(step, total, counted)
            asyncio.run_coroutine_threadsafe(self.may_go.acquire(), self.loop).result(30)

        return super().generate(batch, gated)

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.may_go.release()


async def submit(site: Site, partial_images: int, **asked: Any) -> str:
    now = site.clock.now()
    small = {"width": 64, "height": 64, "num_inference_steps": 8, **asked}
    fresh = make_job(
        pool=site.pool.name,
        generation=make_generation(**small),
        created_at=now,
        updated_at=now,
        partial_images=partial_images,
    )
    await site.create(fresh)
    await site.queue.send(message_for(fresh))
    return fresh.id


async def shown(site: Site, job_id: str, step: int) -> Job:
    async with asyncio.timeout(30):
        while (job := await site.jobs.get(job_id)).preview_step != step:
            await asyncio.sleep(0.01)
    return job


async def test_previews_come_at_even_distances_and_each_replaces_the_last(site: Site) -> None:
    job_id = await submit(site, partial_images=3)
    engine = Waiting()
    async with site.worker(engine):
        for step in (2, 4, 6):
            engine.go_on(1 if step == 2 else 2)
            job = await shown(site, job_id, step)
            assert job.status is JobState.RUNNING
            with Image.open(io.BytesIO(await site.images.get(job_id, PREVIEW))) as picture:
                assert picture.size == (64, 64)
        engine.go_on(8)
        assert (await site.ended(job_id)).status is JobState.SUCCEEDED
    assert engine.decoded == 3


async def test_nothing_is_decoded_for_a_job_that_asked_for_no_previews(site: Site) -> None:
    job_id = await submit(site, partial_images=0)
    engine = Waiting()
    engine.go_on(8)
    async with site.worker(engine):
        await site.ended(job_id)
    assert engine.decoded == 0
    with pytest.raises(ImageNotFound):
        await site.images.get(job_id, PREVIEW)


class NoRoomForPreviews(ImageStore):
    """A store that takes everything but previews."""

    def __init__(self, images: ImageStore) -> None:
        self.images = images

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        if name == PREVIEW:
            raise StoreUnavailable("no room")
        await self.images.put(job_id, name, png, attempt=attempt)

    async def get(self, job_id: str, name: str) -> bytes:
        return await self.images.get(job_id, name)

    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str | None:
        return await self.images.link(job_id, name, lifetime)

    async def delete(self, job_id: str) -> None:
        await self.images.delete(job_id)


async def test_a_preview_that_cannot_be_stored_harms_nothing(site: Site) -> None:
    here = site.changed(images=NoRoomForPreviews(site.images))
    job_id = await submit(here, partial_images=3)
    async with here.worker(FakeEngine()):
        job = await here.ended(job_id)
    assert (job.status, job.attempts, job.preview_step) == (JobState.SUCCEEDED, 1, None)


class CannotDecode(FakeEngine):
    """An engine whose previews fail."""

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image.Image]]:
        def broken() -> list[Image.Image]:
            raise RuntimeError("no decoder")

        return super().generate(batch, lambda step, total, _: on_step(step, total, broken))


async def test_a_preview_that_cannot_be_decoded_harms_nothing(site: Site) -> None:
    job_id = await submit(site, partial_images=2)
    async with site.worker(CannotDecode()):
        job = await site.ended(job_id)
    assert (job.status, job.attempts) == (JobState.SUCCEEDED, 1)
