"""Usage: sums of the tenant's records over a time, and no claim beyond what was counted."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api import usage
from darkroom.errors import StoreUnavailable
from darkroom.jobs import Usage
from darkroom.jobstores.sqlite import SCHEMA, SqliteJobStore
from darkroom.sqlite import Database
from tests.api.stack import Stack, open_stack


async def used(stack: Stack, **params: Any) -> dict[str, Any]:
    answer = await stack.http.get("/v1/usage", params=params)
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


async def run(stack: Stack, gpu_seconds: float = 1.5, cost_usd: float = 0.25, **fields: Any) -> str:
    """Submit a job and end it with what it took; a second passes."""
    job_id: str = (await stack.submit(**fields))["id"]
    await stack.begin(job_id)
    job = await stack.finish(job_id)
    took = Usage(gpu_seconds=gpu_seconds, cost_usd=cost_usd)
    await stack.state.jobs.compare_and_set(job.model_copy(update={"usage": took}), job.version)
    stack.clock.advance(1)
    return job_id


async def test_seconds_cost_and_jobs_are_added_up_by_model_and_status(stack: Stack) -> None:
    await run(stack, 1.5, 0.25)
    await run(stack, 2.0, 0.5)
    await run(stack, 4.0, 1.0, model="words-only")
    await stack.submit()
    waiting = await stack.submit()
    await stack.http.post(f"/v1/jobs/{waiting['id']}:cancel")
    report = await used(stack)
    assert (report["jobs"], report["gpu_seconds"], report["cost_usd"]) == (5, 7.5, 1.75)
    demo, words = report["models"]
    assert demo == {
        "model": "demo",
        "gpu_seconds": 3.5,
        "cost_usd": 0.75,
        "jobs": {"Canceled": 1, "NotStarted": 1, "Succeeded": 2},
    }
    assert (words["model"], words["gpu_seconds"], words["jobs"]) == (
        "words-only",
        4.0,
        {"Succeeded": 1},
    )
    assert report["truncated"] is False
    assert report["counted_from"] == report["from"]


async def test_only_the_time_that_was_asked_for_is_counted(stack: Stack) -> None:
    start = stack.clock.now()
    for seconds in (1.0, 2.0, 4.0, 8.0):  # created at 0, 1, 2 and 3 s
        await run(stack, seconds)
    middle = {
        "from": start.isoformat(),
        "to": (start + timedelta(seconds=2)).isoformat(),
    }
    report = await used(stack, **middle)
    assert report["gpu_seconds"] == 2.0 + 4.0, "after the start, up to and with the end"
    assert report["jobs"] == 2


async def test_an_erased_job_stays_in_the_sums(stack: Stack) -> None:
    job_id = await run(stack, 1.5)
    await stack.http.delete(f"/v1/jobs/{job_id}")
    assert (await used(stack))["gpu_seconds"] == 1.5


async def test_another_tenants_jobs_are_not_counted(stack: Stack) -> None:
    await run(stack)
    record = await stack.state.jobs.get((await stack.submit())["id"])
    foreign = record.model_copy(update={"id": record.id[:-1] + "0", "tenant": "another"})
    await stack.state.jobs.create(foreign)
    assert (await used(stack))["jobs"] == 2


async def test_more_than_is_read_is_said_and_can_be_gone_on_from(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "PAGE", 2)
    monkeypatch.setattr(usage, "MAX_PAGES", 2)
    for _ in range(7):
        await run(stack, 1.0)
    now = stack.clock.now().isoformat()
    report = await used(stack, to=now)
    assert (report["truncated"], report["jobs"]) == (True, 4)
    start = report["from"]
    # whoever goes on counts the rest once: newer records are passed over, so the bound is wider
    monkeypatch.setattr(usage, "MAX_PAGES", 10)
    just_before = _microsecond_before(report["counted_from"])
    rest = await used(stack, **{"from": start, "to": just_before})
    assert (rest["truncated"], rest["jobs"]) == (False, 3)


def _microsecond_before(moment: str) -> str:
    return (datetime.fromisoformat(moment) - timedelta(microseconds=1)).isoformat()


async def test_the_reads_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Counting(SqliteJobStore):
        pages = 0

        async def list(self, *args: Any, **kwargs: Any) -> Any:
            self.pages += 1
            return await super().list(*args, **kwargs)

    monkeypatch.setattr(usage, "PAGE", 1)
    monkeypatch.setattr(usage, "MAX_PAGES", 3)
    store = Counting(Database(tmp_path / "jobs.db", SCHEMA, StoreUnavailable))
    async with open_stack(jobs=store) as stack:
        for _ in range(6):
            await stack.submit()
        stack.clock.advance(1)
        assert (await used(stack))["truncated"] is True
    await store.close()
    assert store.pages == 3


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"from": "2025-11-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"from": "2026-01-01T00:00:00"}, "from"),
        ({"to": "0001-01-01T00:00:00Z"}, "to"),
        ({"from": "0001-01-01T00:00:00+23:59"}, "from"),
        ({"from": "soon"}, "from"),
    ],
)
async def test_a_time_that_cannot_be_is_refused_by_name(
    stack: Stack, params: dict[str, str], target: str
) -> None:
    answer = await stack.http.get("/v1/usage", params=params)
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, target)
