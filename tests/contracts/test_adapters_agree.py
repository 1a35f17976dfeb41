"""The embedded adapters answer like the in-memory ones, call for call, on random histories."""

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from darkroom.errors import DarkroomError
from darkroom.jobs import Job, claim, mark_sent, request_cancel
from darkroom.jobstores.base import Idempotency, JobFilter, JobStore, Page
from darkroom.queues.base import DeadLetter, JobQueue, Lease
from tests.contracts.adapters import (
    LEASE_SECONDS,
    Queues,
    memory_jobs,
    memory_queue,
    sqlite_job_store,
    sqlite_queue,
)
from tests.samples import make_generation, make_job, make_message

SEEDS = range(12)


async def answer(call: Awaitable[Any]) -> Any:
    """Return what a call gave, in a form that two adapters can be compared by."""
    try:
        result = await call
    except DarkroomError as error:
        return type(error).__name__, error.target
    if isinstance(result, Page):
        return [job.id for job in result.jobs], result.next_cursor
    if isinstance(result, list | tuple):
        return [_plain(each) for each in result]
    return _plain(result)


def _plain(value: Any) -> Any:
    if isinstance(value, Lease):
        return value.message_id, value.delivery_count, value.expires_at, bytes(value.body)
    if isinstance(value, DeadLetter):
        return value.message_id, value.reason, value.delivery_count, value.enqueued_at
    return value


@pytest.mark.parametrize("seed", SEEDS)
async def test_queues_agree(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    messages = [make_message() for _ in range(6)]
    async with memory_queue(tmp_path) as memory, sqlite_queue(tmp_path) as sqlite:
        sides = (memory, sqlite)
        held: list[list[Lease]] = [[], []]
        for step in range(150):
            act = chance.choice(["send", "lease", "lease", "settle", "settle", "wait", "dead"])
            message = chance.choice(messages)
            late = chance.choice([None, None, 5, 45])
            index, how = chance.randrange(100), chance.randrange(6)
            seconds = chance.choice([1, 7, LEASE_SECONDS - 1, LEASE_SECONDS, 60])
            answers = []
            for side, leases in zip(sides, held, strict=True):
                if act == "wait":
                    answers.append(await side.advance(seconds))
                elif act == "send":
                    when = side.now() + timedelta(seconds=late) if late else None
                    answers.append(await answer(side.queue.send(message, not_before=when)))
                elif act == "lease":
                    taken = list(await side.queue.lease(1 + how % 3, 0))
                    leases.extend(taken)
                    answers.append([_plain(lease) for lease in taken])
                elif act == "settle" and leases:
                    answers.append(await answer(settle(leases[index % len(leases)], how)))
                else:
                    answers.append(await answer(look(side.queue, message.message_id, how)))
                answers.append(await side.queue.depth())
            half = len(answers) // 2
            assert answers[:half] == answers[half:], f"step {step}: {act}"


@pytest.mark.parametrize("opening", [memory_queue, sqlite_queue], ids=["memory", "sqlite"])
async def test_only_what_waits_makes_a_second_send_a_duplicate(
    tmp_path: Path, opening: Callable[[Path], AbstractAsyncContextManager[Queues]]
) -> None:
    message = make_message()
    async with opening(tmp_path) as queues:
        await queues.queue.send(message)
        await queues.other.send(message)
        (lease,) = await queues.queue.lease(5, 0)
        await queues.other.send(message)  # the first is in work: this one is more work
        await lease.complete()
        (again,) = await queues.queue.lease(5, 0)
        assert (again.message_id, again.delivery_count) == (message.message_id, 1)


@pytest.mark.parametrize("opening", [memory_queue, sqlite_queue], ids=["memory", "sqlite"])
async def test_what_is_given_back_keeps_its_place(
    tmp_path: Path, opening: Callable[[Path], AbstractAsyncContextManager[Queues]]
) -> None:
    first, second = make_message(), make_message()
    async with opening(tmp_path) as queues:
        await queues.queue.send(first)
        await queues.advance(1)
        await queues.queue.send(second)
        (lease,) = await queues.queue.lease(1, 0)
        await lease.abandon(counted=False)
        assert [each.message_id for each in await queues.queue.lease(2, 0)] == [
            first.message_id,
            second.message_id,
        ]


def settle(lease: Lease, how: int) -> Awaitable[Any]:
    return [
        lease.renew,
        lease.complete,
        lease.abandon,
        lambda: lease.abandon(delay_seconds=10),
        lambda: lease.abandon(counted=False),
        lambda: lease.dead_letter("Broken", "It broke."),
    ][how]()


def look(queue: JobQueue, message_id: str, how: int) -> Awaitable[Any]:
    if how == 0:
        return queue.discard(message_id)
    return queue.resubmit(message_id) if how == 1 else queue.dead_letters(limit=how)


@pytest.mark.parametrize("seed", SEEDS)
async def test_job_stores_agree(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with memory_jobs(tmp_path) as memory, sqlite_job_store(tmp_path) as sqlite:
        known: list[Job] = [make_job()]
        for step in range(120):
            now = memory.now()
            fresh = make_job(
                tenant=chance.choice(["acme", "umbrella"]),
                created_at=now,
                generation=make_generation(model=chance.choice(["demo", "large"])),
            )
            old = chance.choice(known)
            act = chance.choice(["create", "create", "key", "set", "set", "list", "unsent", "wait"])
            seconds = chance.choice([1, 3_600, 40_000])
            arguments = (chance.random(), chance.randrange(1, 5))
            answers = []
            for side in (memory, sqlite):
                if act == "wait" and side.advance is not None:
                    answers.append(await side.advance(seconds))
                else:
                    answers.append(await answer(job_call(side.store, act, fresh, old, arguments)))
            assert answers[0] == answers[1], f"step {step}: {act}"
            if act in {"create", "key"}:
                known.append(fresh)
            elif act == "set" and isinstance(answers[0], Job):
                known.append(answers[0])


def job_call(
    store: JobStore, act: str, fresh: Job, old: Job, arguments: tuple[float, int]
) -> Awaitable[Any]:
    share, number = arguments
    if act == "create":
        return store.create(fresh if share < 0.8 else old)
    if act == "key":
        return store.create(fresh, Idempotency(f"key-{number}", "ab"[share < 0.2]))
    if act == "unsent":
        return store.unsent(fresh.created_at + timedelta(seconds=1), limit=number)
    if act == "list":
        filters = JobFilter(model="demo" if share < 0.5 else None)
        return store.list(fresh.tenant, filters, limit=number)
    changes = (mark_sent, lambda job, now: claim(job, now, 60), request_cancel)
    try:
        changed = changes[number % 3](old, fresh.created_at)
    except DarkroomError:
        changed = old
    return store.compare_and_set(changed, old.version or "1")
