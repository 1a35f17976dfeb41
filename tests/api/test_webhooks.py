"""Asking for a webhook, and hearing of a job's end, by the HTTP API."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.webhooks.outcomes import EXHAUSTED
from api.webhooks.settings import WebhookSettings
from darkroom.jobs import mark_webhook
from darkroom.jobstores.base import JobStore
from darkroom.messages import decode_webhook
from darkroom.webhooks import WebhookState
from tests.api.stack import PROMPT, Stack, open_stack
from tests.webhooks.receiver import SECRET, write_secrets

URL = "https://hooks.example.com/darkroom?token=receivers-own"


@asynccontextmanager
async def hooked(folder: Path, jobs: JobStore | None = None, **more: Any) -> AsyncIterator[Stack]:
    write_secrets(folder / "secrets.yaml", {"local": [SECRET]})
    settings = {"secrets_file": folder / "secrets.yaml", **more}
    chosen = WebhookSettings.model_validate(settings)
    async with open_stack(jobs=jobs, webhook_settings=chosen) as stack:
        yield stack


async def events(stack: Stack) -> list[tuple[str, str]]:
    """Take every queued event; return its message id and event."""
    assert stack.state.webhooks is not None
    found = []
    while leases := await stack.state.webhooks.lease(100, 0):
        for lease in leases:
            found.append((lease.message_id, decode_webhook(lease.body).event))
            await lease.complete()
    return found


@pytest.mark.parametrize("ending", ["job.succeeded", "job.canceled"])
async def test_the_end_of_a_job_queues_its_event_once(tmp_path: Path, ending: str) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit(webhook_url=URL)
        assert job["webhook"]["state"] == "waiting"
        assert await events(stack) == []
        if ending == "job.succeeded":
            await stack.begin(job["id"])
            await stack.finish(job["id"])
        else:
            await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
            await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        read = (await stack.http.get(f"/v1/jobs/{job['id']}")).json()
        assert read["webhook"] == {
            "url": URL,
            "events": ["job.succeeded", "job.failed", "job.canceled"],
            "state": "queued",
        }
        assert await events(stack) == [(f"{job['id']}.{ending}", ending)]


async def test_a_job_that_the_sweeper_fails_is_told_too(tmp_path: Path) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit(webhook_url=URL, deadline_seconds=60)
        record = await stack.state.jobs.get(job["id"])
        forgotten = record.model_copy(update={"sent_at": None})
        await stack.state.jobs.compare_and_set(forgotten, record.version)
        stack.clock.advance(120)
        await stack.state.sweeper.sweep()
        assert await events(stack) == [(f"{job['id']}.job.failed", "job.failed")]


async def test_a_job_without_a_webhook_pays_nothing(tmp_path: Path) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit()
        assert job["webhook"] is None
        before = (await stack.state.jobs.get(job["id"])).version
        await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        assert int((await stack.state.jobs.get(job["id"])).version) == int(before) + 1
        assert await events(stack) == []


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"webhook_url": "http://hooks.example.com/"}, "webhook_url"),
        ({"webhook_url": "ftp://hooks.example.com/"}, "webhook_url"),
        ({"webhook_url": "https://user:word@hooks.example.com/"}, "webhook_url"),
        ({"webhook_url": "https://hooks.example.com/#part"}, "webhook_url"),
        ({"webhook_url": "https://hooks.example.com:99999/"}, "webhook_url"),
        ({"webhook_url": "https://hooks.example.com:22/"}, "webhook_url"),
        ({"webhook_url": "https://169.254.169.254/"}, "webhook_url"),
        ({"webhook_url": "https://[::1]/"}, "webhook_url"),
        ({"webhook_url": "https://localhost/"}, "webhook_url"),
        ({"webhook_url": "https:///nowhere"}, "webhook_url"),
        ({"webhook_url": "https://h.example/" + "a" * 2048}, "webhook_url"),
        ({"webhook_url": 7}, "webhook_url"),
        ({"webhook_url": URL, "webhook_events": []}, "webhook_events"),
        ({"webhook_url": URL, "webhook_events": ["job.started"]}, "webhook_events.0"),
        ({"webhook_events": ["job.failed"]}, "webhook_events"),
    ],
)
async def test_a_webhook_that_cannot_be_is_refused_with_the_fields_name(
    tmp_path: Path, fields: dict[str, Any], target: str
) -> None:
    async with hooked(tmp_path) as stack:
        answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT, **fields})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["target"] == target
        assert "user:word" not in answer.text
        assert await stack.messages() == []


async def test_a_tenant_without_a_secret_is_told_so_at_once(tmp_path: Path) -> None:
    async with open_stack() as stack:
        answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT, "webhook_url": URL})
        assert answer.status_code == 400
        assert "no webhook secret" in answer.json()["error"]["message"]


async def test_the_url_is_in_no_log(tmp_path: Path) -> None:
    async with hooked(tmp_path) as stack:
        with capture_logs() as logs:
            job = await stack.submit(webhook_url=URL)
            await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
            await stack.http.post(f"/v1/jobs/{job['id']}:replay-webhook")
        assert logs
        assert "receivers-own" not in json.dumps(logs, default=str)
        assert "receivers-own" not in repr(await stack.state.jobs.get(job["id"]))


async def test_a_replay_queues_the_same_event_again(tmp_path: Path) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit(webhook_url=URL)
        path = f"/v1/jobs/{job['id']}:replay-webhook"
        early = await stack.http.post(path)
        assert early.status_code == 409
        assert early.json()["error"]["code"] == "JobNotFinished"
        await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        assert len(await events(stack)) == 1
        assert (await stack.http.post(path)).status_code == 202
        assert (await stack.http.post(path)).status_code == 202
        again = await events(stack)
        assert [event for _, event in again] == ["job.canceled"] * 2
        assert len({message_id for message_id, _ in again}) == 2, "no queue takes one for the other"


async def test_a_replay_enables_a_webhook_that_answered_410(tmp_path: Path) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit(webhook_url=URL)
        await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        record = await stack.state.jobs.get(job["id"])
        off = mark_webhook(record, stack.clock.now(), WebhookState.DISABLED)
        await stack.state.jobs.compare_and_set(off, record.version)
        answer = await stack.http.post(f"/v1/jobs/{job['id']}:replay-webhook")
        assert answer.json()["webhook"]["state"] == "queued"


async def test_a_job_without_a_webhook_has_nothing_to_replay(tmp_path: Path) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit()
        await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        answer = await stack.http.post(f"/v1/jobs/{job['id']}:replay-webhook")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "NoWebhook")


async def test_a_resubmitted_job_tells_the_same_receiver_anew(tmp_path: Path) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit(webhook_url=URL, webhook_events=["job.canceled"])
        await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        new = (await stack.http.post(f"/v1/jobs/{job['id']}:resubmit")).json()
        assert new["webhook"] == {"url": URL, "events": ["job.canceled"], "state": "waiting"}


async def test_operators_find_an_event_that_was_set_aside_and_send_it_again(
    tmp_path: Path,
) -> None:
    async with hooked(tmp_path) as stack:
        job = await stack.submit(webhook_url=URL)
        await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
        assert stack.state.webhooks is not None
        [lease] = await stack.state.webhooks.lease(1, 0)
        await lease.dead_letter(EXHAUSTED, "attempt 10 was the last: Timeout")
        [letter] = (await stack.http.get("/v1/dead-letters?pool=webhooks")).json()["value"]
        assert letter["reason"] == EXHAUSTED
        path = f"/v1/dead-letters/webhooks/{job['id']}.job.canceled:resubmit"
        answer = await stack.http.post(path)
        assert answer.is_success, answer.text
        assert await events(stack) == [(f"{job['id']}.job.canceled", "job.canceled")]
