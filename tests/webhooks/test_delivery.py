"""A receiver gets each event in the end, and one that hangs or refuses stands in nobody's way."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api.webhooks.outcomes import EXHAUSTED
from darkroom.errors import QueueUnavailable
from darkroom.messages import webhook_message_for
from darkroom.queues.sqlite import SCHEMA, SqliteJobQueue
from darkroom.sqlite import Database
from darkroom.webhooks import (
    MAX_ATTEMPTS,
    MAX_DELIVERY_COUNT,
    RETRY_SECONDS,
    Webhook,
    WebhookState,
)
from tests.samples import make_generation
from tests.webhooks.receiver import posting, receiving, until


async def test_an_end_is_told_once_and_without_the_prompt(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        secret = "a prompt that nobody else may read"
        job = await post.ended(receiver.url, generation=make_generation(prompt=secret))
        assert job.webhook is not None
        assert job.webhook.state is WebhookState.QUEUED
        assert await post.deliver() == 1
        assert receiver.ids == [f"{job.id}.job.canceled"]
        said = json.loads(receiver.requests[0][1])
        assert said["type"] == "job.canceled"
        assert said["data"]["id"] == job.id
        assert said["data"]["links"]["self"] == f"/v1/jobs/{job.id}"
        assert secret.encode() not in receiver.requests[0][1]
        assert (await post.queue.depth()).active == 0


async def test_a_receiver_that_fails_for_hours_gets_every_event_in_the_end(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        receiver.status = 500
        jobs = [await post.ended(receiver.url) for _ in range(5)]
        for _ in range(60):  # 15 hours, in quarters
            await post.deliver()
            post.clock.advance(900)
        assert set(receiver.ids) == {f"{job.id}.job.canceled" for job in jobs}
        receiver.requests.clear()
        receiver.status = 200
        for _ in range(60):
            await post.deliver()
            post.clock.advance(900)
        assert sorted(receiver.ids) == sorted(f"{job.id}.job.canceled" for job in jobs)
        assert post.attempts("Delivered") == 5


def on_disk(folder: Path) -> Any:
    return lambda clock: SqliteJobQueue(
        Database(folder / "queue.db", SCHEMA, QueueUnavailable),
        "webhooks",
        lease_seconds=60,
        max_delivery_count=MAX_DELIVERY_COUNT,
        clock=clock,
    )


@pytest.mark.parametrize("adapter", ["memory", "sqlite"])
async def test_the_waits_are_those_of_the_schedule_and_then_it_is_set_aside(
    tmp_path: Path, adapter: str
) -> None:
    queue = on_disk(tmp_path) if adapter == "sqlite" else None
    async with receiving() as receiver, posting(tmp_path, queue=queue) as post:
        receiver.status = 503
        job = await post.ended(receiver.url)
        for attempt, wait_seconds in enumerate(RETRY_SECONDS, start=1):
            assert await post.deliver() == 1
            assert len(receiver.requests) == attempt
            post.clock.advance(wait_seconds - 1)
            assert await post.deliver() == 0
            post.clock.advance(1)
        assert await post.deliver() == 1
        assert len(receiver.requests) == MAX_ATTEMPTS == 10
        post.clock.advance(timedelta(days=30).total_seconds())
        assert await post.deliver() == 0
        [letter] = await post.queue.dead_letters()
        assert letter.reason == EXHAUSTED
        assert "Status5xx" in letter.description
        assert letter.message_id == f"{job.id}.job.canceled"
        assert len(set(receiver.ids)) == 1
        await post.queue.close()


async def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path: Path) -> None:
    async with receiving() as inside, receiving() as receiver, posting(tmp_path) as post:
        receiver.status, receiver.extra = 302, f"location: {inside.url}\r\n"
        await post.ended(receiver.url)
        await post.deliver()
        assert len(receiver.requests) == 1
        assert inside.requests == []
        assert post.attempts("Status3xx") == 1
        assert (await post.queue.depth()).scheduled == 1


async def test_410_ends_the_telling_of_that_job_alone(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        receiver.status = 410
        job = await post.ended(receiver.url)
        await post.queue.send(webhook_message_for(job, replay="again"))
        await post.deliver()
        assert len(receiver.requests) == 1, "what was queued beside it is not sent"
        post.clock.advance(RETRY_SECONDS[0] * 1000)
        assert await post.deliver() == 0
        read = await post.jobs.get(job.id)
        assert read.webhook is not None
        assert read.webhook.state is WebhookState.DISABLED
        receiver.status = 200
        other = await post.ended(receiver.url)
        await post.deliver()
        assert receiver.ids[-1] == f"{other.id}.job.canceled"


async def test_a_filtered_event_is_not_told(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        hook = Webhook(url=receiver.url, events=("job.failed", "job.succeeded"))
        job = await post.ended(receiver.url, webhook=hook)
        assert job.webhook is not None
        assert job.webhook.state is WebhookState.UNWANTED
        assert await post.deliver() == 0


async def test_receivers_that_hang_block_nobody_else(tmp_path: Path) -> None:
    async with (
        receiving() as dead,
        receiving() as well,
        posting(tmp_path, concurrency=8, per_host=2, timeout_seconds=30) as post,
    ):
        never = asyncio.Event()

        async def hang() -> int:
            await never.wait()
            return 200

        dead.answer = hang
        hanging = [await post.ended(dead.url) for _ in range(12)]
        running = asyncio.create_task(post.sender.run())
        await until(lambda: len(dead.requests) >= 2)
        good = [
            await post.ended(f"http://127.0.0.1:{well.port}/", tenant="other") for _ in range(20)
        ]
        for _ in range(100):
            if len(well.requests) == len(good):
                break
            post.clock.advance(2)  # whoever was put off comes back
            await asyncio.sleep(0.05)
        assert set(well.ids) == {f"{job.id}.job.canceled" for job in good}
        assert len(dead.requests) == 2, "no more than its lane has"
        assert len(hanging) == 12
        never.set()
        post.sender.stop()
        await asyncio.wait_for(running, 10)


async def test_a_tenant_with_many_hosts_that_hang_holds_half_of_the_places(
    tmp_path: Path,
) -> None:
    async with (
        receiving() as dead,
        receiving() as well,
        posting(tmp_path, concurrency=4, per_host=4, timeout_seconds=30) as post,
    ):
        never = asyncio.Event()

        async def hang() -> int:
            await never.wait()
            return 200

        dead.answer = hang
        for index in range(6):
            await post.ended(f"http://h{index}.localhost:{dead.port}/")
        running = asyncio.create_task(post.sender.run())
        await until(lambda: len(dead.requests) == 2)
        await post.ended(well.url, tenant="other")
        await until(lambda: len(well.requests) == 1)
        assert len(dead.requests) == 2
        never.set()
        post.sender.stop()
        await asyncio.wait_for(running, 10)


async def test_an_answer_that_never_ends_is_cut_at_the_time_out(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path, timeout_seconds=0.2) as post:

        async def hang() -> int:
            await asyncio.sleep(60)
            return 200

        receiver.answer = hang
        await post.ended(receiver.url)
        await asyncio.wait_for(post.deliver(), 10)
        assert post.attempts("Timeout") == 1
        assert (await post.queue.depth()).scheduled == 1


async def test_a_replay_tells_the_same_event_under_the_same_id(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        job = await post.ended(receiver.url)
        await post.deliver()
        await post.queue.send(webhook_message_for(job, replay="r1"))
        await post.deliver()
        assert receiver.ids == [f"{job.id}.job.canceled"] * 2
        assert receiver.requests[0][1] == receiver.requests[1][1]


async def test_a_tenant_whose_secret_is_gone_is_sent_nothing_unsigned(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        await post.ended(receiver.url, tenant="stranger")
        await post.deliver()
        assert receiver.requests == []
        assert post.attempts("NoSecret") == 1


async def test_an_end_whose_queue_was_away_is_found_by_the_sweep(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        send = post.queue.send
        post.queue.send = away  # type: ignore[method-assign, assignment]
        job = await post.ended(receiver.url)
        assert job.webhook is not None
        assert job.webhook.state is WebhookState.PENDING
        post.clock.advance(20)
        assert await post.sender.sweep() == 0
        post.queue.send = send  # type: ignore[method-assign]
        assert await post.sender.sweep() == 1
        assert await post.sender.sweep() == 0
        await post.deliver()
        assert receiver.ids == [f"{job.id}.job.canceled"]


async def away(*_: object, **__: object) -> None:
    raise QueueUnavailable("away")


async def test_a_sender_that_stops_finishes_what_it_has_begun(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        go = asyncio.Event()

        async def slow() -> int:
            await go.wait()
            return 200

        receiver.answer = slow
        await post.ended(receiver.url)
        running = asyncio.create_task(post.sender.run())
        await until(lambda: len(receiver.requests) == 1)
        post.sender.stop()
        go.set()
        await asyncio.wait_for(running, 10)
        assert (await post.queue.depth()).active == 0
        assert post.attempts("Delivered") == 1
