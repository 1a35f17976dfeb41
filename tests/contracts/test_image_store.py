"""What `darkroom.imagestores.base` promises, asked of every adapter."""

import asyncio
from datetime import timedelta

import pytest

from darkroom.errors import ImageNotFound, StaleAttempt
from darkroom.imagestores.base import INPUT_IMAGE, INPUT_MASK, output_name
from darkroom.jobs import new_job_id
from tests.contracts.adapters import ImageStores
from tests.samples import PNG


@pytest.fixture
def job_id() -> str:
    return new_job_id("local", "acme")


def picture(fill: int, size: int = 1_000) -> bytes:
    return PNG + bytes([fill]) * size


async def test_a_picture_is_read_back_by_anybody(images: ImageStores, job_id: str) -> None:
    for index, name in enumerate([output_name(0), output_name(1), INPUT_IMAGE, INPUT_MASK]):
        await images.store.put(job_id, name, picture(index))
    for index, name in enumerate([output_name(0), output_name(1), INPUT_IMAGE, INPUT_MASK]):
        assert await images.other.get(job_id, name) == picture(index)


async def test_a_picture_that_is_not_there_is_not_found(images: ImageStores, job_id: str) -> None:
    with pytest.raises(ImageNotFound):
        await images.store.get(job_id, output_name(0))
    await images.store.put(job_id, output_name(0), PNG)
    with pytest.raises(ImageNotFound):
        await images.store.get(job_id, output_name(1))
    with pytest.raises(ImageNotFound):
        await images.store.get(new_job_id("local", "acme"), output_name(0))


async def test_an_older_attempt_never_replaces_a_newer_one(
    images: ImageStores, job_id: str
) -> None:
    await images.store.put(job_id, output_name(0), picture(2), attempt=2)
    with pytest.raises(StaleAttempt):
        await images.other.put(job_id, output_name(0), picture(1), attempt=1)
    assert await images.store.get(job_id, output_name(0)) == picture(2)


async def test_the_same_or_a_later_attempt_writes_the_same_name_again(
    images: ImageStores, job_id: str
) -> None:
    for attempt, fill in ((1, 1), (1, 2), (2, 3), (12, 4)):
        await images.store.put(job_id, output_name(0), picture(fill), attempt=attempt)
        assert await images.other.get(job_id, output_name(0)) == picture(fill)
    with pytest.raises(StaleAttempt):  # 9 < 12, though not as text
        await images.store.put(job_id, output_name(0), picture(5), attempt=9)


async def test_the_fence_is_per_picture(images: ImageStores, job_id: str) -> None:
    await images.store.put(job_id, output_name(0), picture(3), attempt=3)
    await images.store.put(job_id, output_name(1), picture(1), attempt=1)
    await images.store.put(new_job_id("local", "acme"), output_name(0), picture(1), attempt=1)


async def test_whatever_the_order_the_highest_attempt_stays(
    images: ImageStores, job_id: str
) -> None:
    async def put(attempt: int) -> None:
        store = (images.store, images.other)[attempt % 2]
        await store.put(job_id, output_name(0), picture(attempt), attempt=attempt)

    results = await asyncio.gather(
        *(put(attempt) for attempt in (4, 1, 9, 3, 7, 2, 8, 5, 6)), return_exceptions=True
    )
    assert all(result is None or isinstance(result, StaleAttempt) for result in results)
    assert await images.store.get(job_id, output_name(0)) == picture(9)


async def test_a_reader_never_sees_a_part(images: ImageStores, job_id: str) -> None:
    await images.store.put(job_id, output_name(0), picture(0, 500_000))
    reading = True

    async def read() -> set[bytes]:
        seen = set()
        while reading:
            seen.add(await images.other.get(job_id, output_name(0)))
        return seen

    reader = asyncio.create_task(read())
    for fill in range(1, 20):
        await images.store.put(job_id, output_name(0), picture(fill, 500_000 - fill))
    reading = False
    whole = {picture(fill, 500_000 - fill) for fill in range(20)}
    assert await reader <= whole


async def test_deleting_removes_all_pictures_of_one_job(images: ImageStores, job_id: str) -> None:
    stays = new_job_id("local", "acme")
    for job in (job_id, stays):
        await images.store.put(job, output_name(0), PNG, attempt=3)
        await images.store.put(job, INPUT_IMAGE, PNG)
    await images.other.delete(job_id)
    for name in (output_name(0), INPUT_IMAGE):
        with pytest.raises(ImageNotFound):
            await images.store.get(job_id, name)
        assert await images.store.get(stays, name) == PNG
    await images.store.delete(job_id)  # nothing left: fine


async def test_a_deleted_job_can_have_pictures_again(images: ImageStores, job_id: str) -> None:
    await images.store.put(job_id, output_name(0), PNG, attempt=3)
    await images.store.delete(job_id)
    await images.store.put(job_id, output_name(0), picture(1), attempt=4)
    assert await images.store.get(job_id, output_name(0)) == picture(1)


async def test_a_link_is_an_address_or_none(images: ImageStores, job_id: str) -> None:
    await images.store.put(job_id, output_name(0), PNG)
    link = await images.store.link(job_id, output_name(0), timedelta(minutes=5))
    assert link is None or link.startswith(("http://", "https://"))
