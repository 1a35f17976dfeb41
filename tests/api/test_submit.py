"""POST /v1/jobs: what a caller gets back, and what is behind it then."""

import asyncio
import re

import pytest
from structlog.testing import capture_logs

from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.generation import MAX_SEED
from darkroom.jobs import Job, JobState
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.log import prompt_hash
from darkroom.messages import Message, decode
from darkroom.queues.memory import MemoryJobQueue
from tests.api.stack import BASE, PROMPT, Stack, open_stack


async def test_a_submit_is_accepted_with_the_address_to_poll(stack: Stack) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["operation-location"] == f"{BASE}/v1/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["etag"]
    assert job["status"] == "NotStarted"
    assert job["phase"] == "queued"
    assert job["created_at"].endswith("Z")


async def test_the_job_shows_every_default_and_the_seed_that_was_drawn(stack: Stack) -> None:
    job = await stack.submit()
    asked = job["input"]
    assert (asked["width"], asked["height"], asked["num_inference_steps"]) == (128, 128, 20)
    assert asked["scheduler"] == "DDIMScheduler"
    assert 0 <= asked["seed"] <= MAX_SEED
    other = await stack.submit()
    assert other["input"]["seed"] != asked["seed"]


async def test_what_was_given_is_kept(stack: Stack) -> None:
    fields = {
        "negative_prompt": "fog",
        "width": 256,
        "height": 192,
        "num_inference_steps": 7,
        "guidance_scale": 3,
        "num_images": 2,
        "seed": MAX_SEED,
        "scheduler": "EulerDiscreteScheduler",
        "loras": [{"name": "ink", "weight": 0.5}],
    }
    job = await stack.submit(**fields, tags={"team": "print"}, deadline_seconds=60)
    assert {name: job["input"][name] for name in fields} == fields
    assert job["tags"] == {"team": "print"}
    assert job["deadline_at"] == "2026-01-01T00:01:00Z"


async def test_the_message_names_the_job_and_never_the_prompt(stack: Stack) -> None:
    job = await stack.submit()
    [lease] = await stack.state.queues["short"].lease(10, 0)
    assert decode(lease.body).job_id == job["id"]
    assert PROMPT.encode() not in lease.body
    stored = await stack.state.jobs.get(job["id"])
    assert stored.sent_at == stack.clock.now()


async def test_a_long_job_goes_to_the_long_pool(stack: Stack) -> None:
    job = await stack.submit(width=512, height=256, num_inference_steps=100)
    assert job["pool"] == "long"


class _Counting(MemoryJobStore):
    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    async def create(self, *args, **kwargs):
        self.writes += 1
        return await super().create(*args, **kwargs)

    async def compare_and_set(self, *args, **kwargs):
        self.writes += 1
        return await super().compare_and_set(*args, **kwargs)


async def test_a_submit_costs_two_writes_and_one_send() -> None:
    store = _Counting()
    async with open_stack(jobs=store) as stack:
        job = await stack.submit()
        assert store.writes == 2
        assert await stack.messages() == [job["id"]]


class _Failing(MemoryJobQueue):
    broken = True

    async def send(self, message: Message, **kwargs) -> None:
        if self.broken:
            raise QueueUnavailable("no answer from 10.0.0.7")
        await super().send(message, **kwargs)


async def test_a_queue_that_is_away_loses_nothing_and_refuses_nobody() -> None:
    queue = _Failing(lease_seconds=30, max_delivery_count=3)
    async with open_stack(queues={"short": queue, "long": queue}) as stack:
        job = await stack.submit()
        assert await stack.messages() == []
        queue.broken = False
        stack.clock.advance(14)
        assert await stack.state.sweeper.sweep() == 0, "too young to be swept"
        stack.clock.advance(2)
        assert await stack.state.sweeper.sweep() == 1
        assert await stack.messages() == [job["id"]]
        assert await stack.state.sweeper.sweep() == 0, "sent once is enough"
        metrics = (await stack.http.get("/metrics")).text
        assert 'darkroom_jobs_resent_total{pool="short"} 1.0' in metrics


async def test_the_sweeper_catches_up_on_more_than_one_page() -> None:
    queue = _Failing(lease_seconds=30, max_delivery_count=3)
    async with open_stack(queues={"short": queue, "long": queue}) as stack:
        for _ in range(230):
            await stack.submit()
        queue.broken = False
        stack.clock.advance(60)
        assert await stack.state.sweeper.sweep() == 230


async def test_a_sweep_that_fails_is_tried_again() -> None:
    class Flaky(MemoryJobStore):
        reads = 0

        async def unsent(self, *args, **kwargs):
            self.reads += 1
            if self.reads == 1:
                raise StoreUnavailable("jobs.db: locked")
            return await super().unsent(*args, **kwargs)

    store = Flaky()
    async with open_stack(jobs=store, sweep_seconds=0.01) as stack:
        running = asyncio.create_task(stack.state.sweeper.run())
        while store.reads < 3:
            await asyncio.sleep(0.005)
        running.cancel()


async def test_a_worker_that_is_faster_than_the_confirmation_is_no_conflict() -> None:
    class Eager(MemoryJobQueue):
        async def send(self, message: Message, **kwargs) -> None:
            await super().send(message, **kwargs)
            await stack.begin(message.message_id)

    queue = Eager(lease_seconds=30, max_delivery_count=3)
    async with open_stack(queues={"short": queue, "long": queue}) as stack:
        job = await stack.submit()
        assert job["status"] == "Running"


async def test_a_store_that_fails_after_the_send_still_accepts() -> None:
    class ForgetsToMark(MemoryJobStore):
        async def compare_and_set(self, job: Job, expected_version: str) -> Job:
            raise StoreUnavailable("jobs.db: locked")

    async with open_stack(jobs=ForgetsToMark()) as stack:
        job = await stack.submit()
        assert await stack.messages() == [job["id"]]


async def test_prefer_wait_answers_with_the_finished_job(stack: Stack) -> None:
    waiting = asyncio.create_task(
        stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers={"Prefer": "wait=30"})
    )
    [job_id] = await _sent(stack)
    await stack.begin(job_id)
    await stack.finish(job_id)
    answer = await waiting
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    assert "retry-after" not in answer.headers
    assert answer.json()["status"] == "Succeeded"


async def _sent(stack: Stack) -> list[str]:
    while not (found := await stack.messages()):
        await asyncio.sleep(0.005)
    return found


async def test_prefer_wait_that_runs_out_answers_202(stack: Stack) -> None:
    answer = await stack.http.post(
        "/v1/jobs", json={"prompt": PROMPT}, headers={"Prefer": "wait=1"}
    )
    assert answer.status_code == 202
    assert answer.json()["status"] == "NotStarted"


@pytest.mark.parametrize(
    ("sent", "applied"),
    [
        ("respond-async", "respond-async"),
        ("handling=lenient, respond-async", "respond-async"),
        ("wait=0", None),
        ("wait=soon", None),
        ("return=minimal", None),
    ],
)
async def test_preferences_are_applied_or_ignored(
    stack: Stack, sent: str, applied: str | None
) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers={"Prefer": sent})
    assert answer.status_code == 202
    assert answer.headers.get("preference-applied") == applied


async def test_the_log_line_tells_everything_but_the_prompt(stack: Stack) -> None:
    with capture_logs() as lines:
        job = await stack.submit(negative_prompt="harbour")
    [line] = [one for one in lines if one["event"] == "admit"]
    assert line["job_id"] == job["id"]
    assert line["tenant"] == "local"
    assert line["prompt_hash"] == prompt_hash(PROMPT)
    assert line["parameters"]["num_inference_steps"] == 20
    assert "lighthouse" not in str(lines)
    assert "harbour" not in str(lines)


async def test_the_callers_trace_goes_on_in_the_message(stack: Stack) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with capture_logs() as lines:
        await stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=headers)
    [lease] = await stack.state.queues["short"].lease(10, 0)
    assert trace in (decode(lease.body).traceparent or "")
    assert [one["trace_id"] for one in lines if one["event"] == "admit"] == [trace]


async def test_links_start_with_the_public_address_where_one_is_set() -> None:
    async with open_stack(public_url="https://pictures.example/darkroom/") as stack:
        answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT})
        location = answer.headers["operation-location"]
        assert location == f"https://pictures.example/darkroom/v1/jobs/{answer.json()['id']}"


async def test_admitted_and_refused_are_counted(stack: Stack) -> None:
    await stack.submit()
    await stack.http.post("/v1/jobs", json={"prompt": PROMPT, "model": "none-such"})
    metrics = (await stack.http.get("/metrics")).text
    assert 'darkroom_jobs_admitted_total{model="demo",pool="short"} 1.0' in metrics
    assert 'darkroom_jobs_refused_total{code="UnknownModel"} 1.0' in metrics
    assert 'darkroom_queue_depth{pool="short",state="active"} 1.0' in metrics
    assert re.search(r'route="/v1/jobs",status="202"} \d', metrics)


async def test_a_job_whose_pool_left_the_catalog_does_not_stop_the_sweeper(stack: Stack) -> None:
    lost = await stack.submit()
    job = await stack.state.jobs.get(lost["id"])
    orphan = job.model_copy(update={"pool": "gone", "sent_at": None})
    await stack.state.jobs.compare_and_set(orphan, job.version)
    stack.clock.advance(60)
    assert await stack.state.sweeper.sweep() == 0
    assert (await stack.state.jobs.get(job.id)).status is JobState.NOT_STARTED


async def test_a_missing_store_is_503_with_a_time_to_come_back() -> None:
    class Away(MemoryJobStore):
        async def create(self, *args, **kwargs):
            raise StoreUnavailable("jobs.db: disk I/O error")

    async with open_stack(jobs=Away()) as stack:
        answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT})
    assert answer.status_code == 503
    assert answer.headers["x-ms-error-code"] == "StoreUnavailable"
    assert int(answer.headers["retry-after"]) >= 1
    assert "disk" not in answer.text, "our own parts' words are for the log"
