"""Both clients, against a real server, directly and through a gateway that misbehaves."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import httpx
import pytest

from darkroom.client import (
    AsyncClient,
    Client,
    DarkroomClientError,
    JobView,
    Retries,
    ServerUnreachable,
    calls,
)
from darkroom.client.events import EventParser, ServerEvent
from darkroom.jobs import JobState
from tests.client.gateway import CUT, LOSE, Gateway, gateway_to
from tests.live import Live

PROMPT = "a lighthouse"


@pytest.fixture
def gateway(server: Live) -> Iterator[Gateway]:
    with gateway_to(server.url) as opened:
        yield opened


@pytest.fixture
def blocking(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.url) as client:
        yield client


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.url) as opened:
        yield opened


def jobs_of(server: Live, tag: str) -> list[JobView]:
    with Client(server.url) as client:
        return list(client.list(tag=("test", tag)))


def test_a_stream_shows_the_way_to_the_end(blocking: Client) -> None:
    seen = list(blocking.stream(blocking.submit(PROMPT, num_images=2).id))
    assert seen[-1].status is JobState.SUCCEEDED
    assert all(before.progress <= after.progress for before, after in pairwise(seen))
    for png, image in zip(blocking.images(seen[-1]), seen[-1].images, strict=True):
        assert hashlib.sha256(png).hexdigest() == image.sha256


async def test_a_job_is_submitted_awaited_and_fetched_without_blocking(
    client: AsyncClient,
) -> None:
    job = await client.wait((await client.submit(PROMPT, num_images=2)).id)
    assert job.status is JobState.SUCCEEDED
    for png, image in zip(await client.images(job), job.images, strict=True):
        assert hashlib.sha256(png).hexdigest() == image.sha256


async def test_the_rest_of_the_calls(
    client: AsyncClient, server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_PAGE_SIZE", 2)
    ids = [(await client.submit(PROMPT, tags={"test": "paging"})).id for _ in range(5)]
    listed = [job.id async for job in client.list(tag=("test", "paging"))]
    assert listed == ids[::-1]
    assert [job.id async for job in client.list(limit=3, tag=("test", "paging"))] == ids[:1:-1]
    assert [model.name for model in await client.models()] == ["demo"]
    last = [job async for job in client.stream(ids[-1])][-1]
    assert (await client.cancel(ids[-1])).status is last.status is JobState.SUCCEEDED
    with pytest.raises(DarkroomClientError) as refused:
        await client.get("../models")
    assert refused.value.status == 404


def test_a_submit_whose_answer_is_lost_makes_one_job(
    blocking: Client, gateway: Gateway, server: Live
) -> None:
    gateway.plan.extend([LOSE, LOSE])
    job = blocking.submit(PROMPT, tags={"test": "lost"})
    assert [one.id for one in jobs_of(server, "lost")] == [job.id]
    keys = [headers["idempotency-key"] for _, _, headers in gateway.seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_a_submit_whose_answer_is_lost_makes_one_job_without_blocking_too(
    client: AsyncClient, gateway: Gateway, server: Live
) -> None:
    gateway.plan.extend([LOSE, LOSE])
    job = await client.submit(PROMPT, tags={"test": "lost-async"})
    assert [one.id for one in jobs_of(server, "lost-async")] == [job.id]


def test_two_submits_alike_make_two_jobs(blocking: Client) -> None:
    assert blocking.submit(PROMPT, seed=1).id != blocking.submit(PROMPT, seed=1).id


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_is_busy_is_asked_again(
    client: AsyncClient, blocking: Client, gateway: Gateway, status: int
) -> None:
    gateway.plan.extend([status, status])
    assert blocking.models()
    assert len(gateway.seen) == 3
    gateway.plan.extend([status, status])
    assert await client.models()
    assert len(gateway.seen) == 6


def test_a_server_that_stays_busy_is_believed(blocking: Client, gateway: Gateway) -> None:
    gateway.plan.extend([503, 503, 503])
    with pytest.raises(DarkroomClientError) as refused:
        blocking.models()
    assert refused.value.status == 503


@pytest.mark.parametrize("status", [400, 404, 500, 502])
def test_other_refusals_are_final(blocking: Client, gateway: Gateway, status: int) -> None:
    gateway.plan.append(status)
    with pytest.raises(DarkroomClientError):
        blocking.models()
    assert len(gateway.seen) == 1


def test_retry_after_decides_the_pause() -> None:
    def pause(asked: str, done: int = 0) -> float | None:
        return Retries().pause(done, httpx.Response(429, headers={"retry-after": asked}))

    assert pause("7") == 7
    assert pause("30") == 30
    assert pause("31") is None, "nobody wants to wait that long unasked"
    assert 0 < (pause("Wed, 21 Oct 2026 07:28:00 GMT") or 0) <= 0.25
    assert pause("7", done=2) is None


def test_nothing_is_tried_again_where_nobody_wants_it(gateway: Gateway) -> None:
    gateway.plan.append(LOSE)
    with (
        Client(gateway.url, retries=Retries(attempts=0)) as client,
        pytest.raises(ServerUnreachable),
    ):
        client.models()
    assert len(gateway.seen) == 1


def test_a_stream_that_is_cut_goes_on_after_its_last_event(
    blocking: Client, gateway: Gateway
) -> None:
    job = blocking.submit(PROMPT, num_inference_steps=150)
    gateway.plan.append(CUT)
    seen = list(blocking.stream(job.id))
    assert seen[-1].status is JobState.SUCCEEDED
    streams = [headers for _, path, headers in gateway.seen if path.endswith("/events")]
    assert "last-event-id" not in streams[0]
    assert streams[1]["last-event-id"]


async def test_a_stream_that_is_cut_goes_on_without_blocking_too(
    client: AsyncClient, gateway: Gateway
) -> None:
    job = await client.submit(PROMPT, num_inference_steps=150)
    gateway.plan.append(CUT)
    seen = [one async for one in client.stream(job.id)]
    assert seen[-1].status is JobState.SUCCEEDED
    assert any("last-event-id" in headers for _, _, headers in gateway.seen)


async def test_the_key_is_sent(gateway: Gateway) -> None:
    with Client(gateway.url, "secret") as blocking:
        blocking.models()
    async with AsyncClient(gateway.url, "secret") as client:
        await client.models()
    assert {headers["authorization"] for _, _, headers in gateway.seen} == {"Bearer secret"}


STREAM = b": hello\n\nevent: status\nid: 1\ndata: {}\n\nretry: 5\n\ndata: a\r\ndata: b\r\n\r\nda"


@pytest.mark.parametrize("size", range(1, 12))
def test_events_are_read_however_they_are_cut(size: int) -> None:
    parser = EventParser()
    chunks = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    found = [event for chunk in chunks for event in parser.feed(chunk)]
    assert found == [ServerEvent("status", "1", "{}"), ServerEvent("message", "", "a\nb")]


def test_a_line_without_end_is_refused() -> None:
    parser = EventParser()
    with pytest.raises(ValueError, match="bytes"):
        for _ in range(20):
            list(parser.feed(b"x" * 100_000))
