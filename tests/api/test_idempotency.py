"""One key, one job, however often and however many at once."""

import asyncio

import pytest

from darkroom.errors import QueueUnavailable
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import JobState
from darkroom.messages import Message
from darkroom.queues.memory import MemoryJobQueue
from tests.api.stack import PROMPT, Stack, base64_picture, open_stack

KEY = {"Idempotency-Key": '"order-7"'}
BODY = {"prompt": PROMPT, "seed": 3}


async def _ids(stack: Stack) -> list[str]:
    return [job["id"] for job in (await stack.http.get("/v1/jobs")).json()["value"]]


async def test_the_same_key_and_body_give_the_same_job(stack: Stack) -> None:
    first = await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
    again = await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["operation-location"] == first.headers["operation-location"]
    assert await stack.messages() == [first.json()["id"]]


async def test_the_seed_that_was_drawn_first_stays(stack: Stack) -> None:
    first = await stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=KEY)
    again = await stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=KEY)
    assert again.json()["input"] == first.json()["input"]


async def test_quoted_and_bare_are_one_key(stack: Stack) -> None:
    await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
    await stack.http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "order-7"})
    assert len(await _ids(stack)) == 1


async def test_a_default_spelled_out_is_the_same_request(stack: Stack) -> None:
    await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
    spelled = {"num_images": 1, **dict(reversed(BODY.items()))}
    again = await stack.http.post("/v1/jobs", json=spelled, headers=KEY)
    assert again.status_code == 202
    assert len(await _ids(stack)) == 1


async def test_another_body_under_the_key_is_422(stack: Stack) -> None:
    await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
    answer = await stack.http.post("/v1/jobs", json={**BODY, "seed": 4}, headers=KEY)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "IdempotencyKeyReused"
    assert len(await _ids(stack)) == 1


async def test_a_finished_job_is_given_again_as_it_is(stack: Stack) -> None:
    job_id = (await stack.http.post("/v1/jobs", json=BODY, headers=KEY)).json()["id"]
    await stack.begin(job_id)
    await stack.finish(job_id)
    again = await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
    assert again.status_code == 202
    assert again.json()["status"] == "Succeeded"


async def test_a_day_later_the_key_is_free(stack: Stack) -> None:
    first = await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
    stack.clock.advance(24 * 3600 + 1)
    again = await stack.http.post("/v1/jobs", json={**BODY, "seed": 4}, headers=KEY)
    assert again.status_code == 202
    assert again.json()["id"] != first.json()["id"]


async def test_twenty_at_once_make_one_job_that_is_claimed_once(stack: Stack) -> None:
    answers = await asyncio.gather(
        *(stack.http.post("/v1/jobs", json=BODY, headers=KEY) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    [job_id] = await _ids(stack)
    assert set(await stack.messages()) == {job_id}


class _Failing(MemoryJobQueue):
    broken = True

    async def send(self, message: Message, **kwargs) -> None:
        if self.broken:
            raise QueueUnavailable("away")
        await super().send(message, **kwargs)


async def test_a_repeat_sends_what_the_first_could_not() -> None:
    queue = _Failing(lease_seconds=30, max_delivery_count=3)
    async with open_stack(queues={"short": queue, "long": queue}) as stack:
        first = await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
        assert first.status_code == 202
        queue.broken = False
        await stack.http.post("/v1/jobs", json=BODY, headers=KEY)
        assert await stack.messages() == [first.json()["id"]]
        stored = await stack.state.jobs.get(first.json()["id"])
        assert stored.sent_at is not None
        assert stored.status is JobState.NOT_STARTED


class _Kept(MemoryImageStore):
    def __init__(self) -> None:
        super().__init__()
        self.kept: set[str] = set()

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        self.kept.add(job_id)
        await super().put(job_id, name, png, attempt=attempt)

    async def delete(self, job_id: str) -> None:
        self.kept.discard(job_id)
        await super().delete(job_id)


@pytest.mark.parametrize("repeats", [1, 5])
async def test_a_repeat_leaves_no_second_copy_of_the_picture(repeats: int) -> None:
    images = _Kept()
    async with open_stack(images=images) as stack:
        body = {**BODY, "image": base64_picture()}
        for _ in range(1 + repeats):
            answer = await stack.http.post("/v1/jobs", json=body, headers=KEY)
        assert images.kept == {answer.json()["id"]}
