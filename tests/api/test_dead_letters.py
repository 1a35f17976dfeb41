"""What operators do with messages that were set aside, and that no job is left without an end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from api.auth.base import Caller
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.jobs import Job, claim
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.messages import message_for
from darkroom.queues.base import JobQueue
from darkroom.queues.memory import MemoryJobQueue
from tests.api.floor import break_down, floor
from tests.api.stack import PROMPT, Stack, open_stack
from tests.worker.site import eventually

DEAD = "/v1/dead-letters"


@dataclass(frozen=True)
class RawMessage:
    """A message with a body of our own choice."""

    message_id: str
    body: bytes
    properties: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        return self.body


async def set_aside(queue: JobQueue, reason: str = "UnsupportedMessage") -> None:
    """Take the one waiting message and set it aside."""
    (lease,) = await queue.lease(10, 0)
    await lease.dead_letter(reason, "it could not be read")


async def listed(stack: Stack, **params: Any) -> list[dict[str, Any]]:
    answer = await stack.http.get(DEAD, params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["value"]
    return found


def calls_as(stack: Stack, caller: Caller) -> None:
    async def identify(headers: Mapping[str, str]) -> Caller:
        return caller

    stack.state.callers.identify = identify  # type: ignore[method-assign]


async def test_a_job_that_failed_is_listed_with_why_and_without_its_prompt(
    stack: Stack, tmp_path: Path
) -> None:
    job_id = await break_down(stack, floor(stack, tmp_path))
    (dead,) = await listed(stack)
    assert dead["message_id"] == dead["job_id"] == job_id
    assert (dead["pool"], dead["reason"], dead["delivery_count"]) == ("short", "OutOfMemory", 3)
    assert (dead["tenant"], dead["model"], dead["job_status"]) == ("local", "demo", "Failed")
    shown = await stack.http.get(f"{DEAD}/short/{job_id}")
    assert shown.status_code == 200
    detail = shown.json()
    assert detail["message"]["num_inference_steps"] == 2
    assert detail["job"]["error"]["code"] == "OutOfMemory"
    assert detail["job"]["attempts"] == 3
    assert detail["unreadable"] is None
    whole = str(dead) + shown.text
    assert PROMPT not in whole
    assert '"prompt"' not in shown.text


async def test_the_oldest_come_first_over_all_pools(stack: Stack) -> None:
    ids = []
    for pool, steps in (("long", 100), ("short", 20), ("long", 100)):
        fields = {"width": 256, "height": 256, "num_images": 2} if pool == "long" else {}
        job = await stack.submit(num_inference_steps=steps, **fields)
        assert job["pool"] == pool
        stack.clock.advance(1)
        await set_aside(stack.state.queues[pool])
        ids.append(job["id"])
    assert [one["message_id"] for one in await listed(stack)] == ids
    assert [one["message_id"] for one in await listed(stack, limit=2)] == ids[:2]
    assert [one["message_id"] for one in await listed(stack, pool="short")] == [ids[1]]


async def test_a_failed_job_is_run_again_as_a_new_one(stack: Stack, tmp_path: Path) -> None:
    site = floor(stack, tmp_path)
    old = await break_down(stack, site, seed=7, tags={"set": "a"})
    answer = await stack.http.post(f"{DEAD}/short/{old}:resubmit")
    assert answer.status_code == 200, answer.text
    assert answer.json()["outcome"] == "admitted"
    assert await listed(stack) == []
    new = answer.json()["job_id"]
    async with site.worker():
        done = await site.ended(new)
    assert (done.status, done.resubmitted_from, done.generation.seed) == ("Succeeded", old, 7)
    assert (await stack.state.jobs.get(old)).status == "Failed", "an end is for good"


async def test_dying_between_the_new_job_and_the_discard_is_repaired_by_asking_again(
    tmp_path: Path,
) -> None:
    class Dying(MemoryJobQueue):
        alive = False

        async def discard(self, message_id: str) -> None:
            if not self.alive:
                raise QueueUnavailable("killed here")
            await super().discard(message_id)

    queue = Dying(lease_seconds=30, max_delivery_count=3)
    async with open_stack(queues={"short": queue}) as stack:
        old = await break_down(stack, floor(stack, tmp_path))
        first = await stack.http.post(f"{DEAD}/short/{old}:resubmit")
        assert first.status_code == 503
        assert len(await listed(stack)) == 1
        queue.alive = True
        again = await stack.http.post(f"{DEAD}/short/{old}:resubmit")
        assert again.status_code == 200
        jobs = (await stack.http.get("/v1/jobs")).json()["value"]
        assert [job["id"] for job in jobs] == [again.json()["job_id"], old]
        assert await stack.messages() == [again.json()["job_id"]]
        over = await stack.http.post(f"{DEAD}/short/{old}:resubmit")
        assert over.headers["x-ms-error-code"] == "DeadLetterNotFound", "it was done"


async def test_a_new_job_that_cannot_be_recorded_costs_no_dead_letter(tmp_path: Path) -> None:
    class Away(MemoryJobStore):
        away = False

        async def create(self, *args: Any, **kwargs: Any) -> Any:
            if self.away:
                raise StoreUnavailable("jobs.db: locked")
            return await super().create(*args, **kwargs)

    store = Away()
    async with open_stack(jobs=store) as stack:
        old = await break_down(stack, floor(stack, tmp_path))
        store.away = True
        assert (await stack.http.post(f"{DEAD}/short/{old}:resubmit")).status_code == 503
        assert [one["message_id"] for one in await listed(stack)] == [old]


async def test_the_tenants_and_the_operators_resubmit_give_one_new_job(
    stack: Stack, tmp_path: Path
) -> None:
    old = await break_down(stack, floor(stack, tmp_path))
    own = (await stack.http.post(f"/v1/jobs/{old}:resubmit")).json()["id"]
    answer = await stack.http.post(f"{DEAD}/short/{old}:resubmit")
    assert answer.json()["job_id"] == own


async def test_a_new_job_belongs_to_the_tenant_of_the_old_one(stack: Stack, tmp_path: Path) -> None:
    calls_as(stack, Caller("acme", frozenset({"Jobs.Submit"})))
    old = await break_down(stack, floor(stack, tmp_path))
    calls_as(stack, Caller("us", frozenset({"Jobs.Operate"})))
    new = (await stack.http.post(f"{DEAD}/short/{old}:resubmit")).json()["job_id"]
    assert (await stack.state.jobs.get(new)).tenant == "acme"


async def test_a_job_that_has_not_ended_gets_its_message_back(stack: Stack) -> None:
    job_id = (await stack.submit())["id"]
    await set_aside(stack.state.queues["short"])
    answer = await stack.http.post(f"{DEAD}/short/{job_id}:resubmit")
    assert answer.json() == {"outcome": "returned", "job_id": None}
    assert await stack.messages() == [job_id]
    assert await listed(stack) == []
    assert (await stack.state.jobs.get(job_id)).status == "NotStarted"


async def test_a_message_that_cannot_be_read_says_why_and_goes_round_again(stack: Stack) -> None:
    queue = stack.state.queues["short"]
    strange = RawMessage("from/elsewhere:1", b'{"version": 99}', {"tenant": "acme"})
    await queue.send(strange)
    await set_aside(queue)
    shown = (await stack.http.get(f"{DEAD}/short/{strange.message_id}")).json()
    assert "version" in shown["unreadable"]
    assert (shown["message"], shown["job"], shown["job_id"]) == (None, None, None)
    assert shown["tenant"] == "acme"
    answer = await stack.http.post(f"{DEAD}/short/{strange.message_id}:resubmit")
    assert answer.json()["outcome"] == "returned"
    (lease,) = await queue.lease(1, 0)
    assert (lease.message_id, lease.delivery_count) == (strange.message_id, 1)


async def test_a_job_that_has_succeeded_is_not_run_again(stack: Stack) -> None:
    job_id = (await stack.submit())["id"]
    await set_aside(stack.state.queues["short"])
    await stack.begin(job_id)
    await stack.finish(job_id)
    answer = await stack.http.post(f"{DEAD}/short/{job_id}:resubmit")
    assert answer.headers["x-ms-error-code"] == "JobSucceeded"
    assert len(await listed(stack)) == 1
    assert (await stack.http.post(f"{DEAD}/short/{job_id}:discard")).status_code == 204
    assert (await stack.state.jobs.get(job_id)).status == "Succeeded"


async def test_a_discard_ends_a_job_that_nobody_runs(stack: Stack) -> None:
    job_id = (await stack.submit())["id"]
    await set_aside(stack.state.queues["short"])
    answer = await stack.http.post(f"{DEAD}/short/{job_id}:discard")
    assert (answer.status_code, answer.content) == (204, b"")
    job = await stack.state.jobs.get(job_id)
    assert job.error is not None
    assert (job.status, job.error.code) == ("Failed", "UnsupportedMessage")
    assert await listed(stack) == []
    assert (await stack.http.post(f"{DEAD}/short/{job_id}:discard")).status_code == 404


async def test_a_discard_leaves_a_job_that_an_attempt_holds(stack: Stack) -> None:
    job_id = (await stack.submit())["id"]
    await set_aside(stack.state.queues["short"])
    await stack.begin(job_id)
    assert (await stack.http.post(f"{DEAD}/short/{job_id}:discard")).status_code == 204
    assert (await stack.state.jobs.get(job_id)).status == "Running"
    assert (await stack.finish(job_id)).status == "Succeeded"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/short/any"),
        ("POST", "/short/any:resubmit"),
        ("POST", "/short/any:discard"),
    ],
)
async def test_dead_letters_are_for_operators_alone(stack: Stack, method: str, path: str) -> None:
    calls_as(stack, Caller("local", frozenset({"Jobs.Submit", "Jobs.Read"})))
    answer = await stack.http.request(method, DEAD + path)
    assert answer.status_code == 403
    assert answer.headers["x-ms-error-code"] == "Forbidden"
    assert "Jobs.Operate" in answer.json()["error"]["message"]
    calls_as(stack, Caller("local", frozenset({"Jobs.Operate"})))
    assert (await stack.http.request(method, DEAD + path)).status_code in (200, 404)


async def test_a_pool_that_there_is_not_is_named(stack: Stack) -> None:
    answer = await stack.http.get(DEAD, params={"pool": "none"})
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "pool")
    assert "short, long" in answer.json()["error"]["message"]
    assert (await stack.http.get(f"{DEAD}/none/any")).status_code == 404


async def _kill_workers(stack: Stack) -> Job:
    """Let a worker claim and die on every delivery, the last one too: the queue gives up itself."""
    job_id = (await stack.submit())["id"]
    for _ in range(3):
        assert await stack.state.queues["short"].lease(1, 0)
        job = await stack.state.jobs.get(job_id)
        job = await stack.state.jobs.compare_and_set(claim(job, stack.clock.now(), 30), job.version)
        stack.clock.advance(31)
    assert not await stack.state.queues["short"].lease(1, 0)
    return job


async def test_a_job_that_the_queue_itself_gave_up_on_ends() -> None:
    async with open_stack(sweep_seconds=0.01) as stack:
        job = await _kill_workers(stack)
        sweeping = asyncio.create_task(stack.state.sweeper.run())

        async def over() -> bool:
            return (await stack.state.jobs.get(job.id)).status.is_terminal

        await eventually(over)
        sweeping.cancel()
        ended = await stack.state.jobs.get(job.id)
        assert ended.error is not None
        assert (ended.status, ended.error.code) == ("Failed", "MaxDeliveryCountExceeded")
        assert len(await listed(stack)) == 1, "the message stays for operators"


async def test_a_message_that_only_stood_by_while_its_workers_died_is_put_back() -> None:
    """Its job was never run: some other job of those workers killed them."""
    async with open_stack(sweep_seconds=0.01) as stack:
        job_id, queue = (await stack.submit())["id"], stack.state.queues["short"]
        for _ in range(3):
            assert await queue.lease(1, 0)
            stack.clock.advance(31)
        assert not await queue.lease(1, 0)
        assert await stack.state.sweeper._exhausted.end() == 0
        (lease,) = await queue.lease(1, 0)
        assert (lease.message_id, lease.delivery_count) == (job_id, 1)
        assert (await stack.state.jobs.get(job_id)).status == "NotStarted"
        assert await listed(stack) == []


async def test_a_job_that_another_copy_of_its_message_keeps_alive_is_left_to_it() -> None:
    async with open_stack(sweep_seconds=0.01) as stack:
        job = await _kill_workers(stack)
        other = await _kill_workers(stack)
        await stack.state.queues["short"].send(message_for(job))
        await stack.begin(job.id)
        sweeping = asyncio.create_task(stack.state.sweeper.run())

        async def over() -> bool:
            return (await stack.state.jobs.get(other.id)).status.is_terminal

        await eventually(over)  # so both were looked at
        sweeping.cancel()
        assert (await stack.finish(job.id)).status == "Succeeded"
