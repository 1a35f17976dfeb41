"""GET /v1/jobs/{id}/events: every change as it is seen, over real connections."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.routes import events
from darkroom.jobs import Job
from darkroom.jobstores.memory import MemoryJobStore
from tests.api.stack import Stack, open_stack
from tests.live import Live, live
from worker.engines.base import OnStep, Preview
from worker.engines.fake import FakeEngine

PATIENCE_SECONDS = 20


class HeldEngine(FakeEngine):
    """Waits before each step until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = threading.Semaphore(0)

    def generate(self, batch: Any, on_step: OnStep) -> Any:
        def held(step: int, total: int, preview: Preview) -> None:
            assert self.steps.acquire(timeout=PATIENCE_SECONDS)
            on_step(step, total, preview)

        return super().generate(batch, held)


@dataclass
class Site:
    live: Live
    engine: HeldEngine


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    engine = HeldEngine()
    with live(tmp_path, engine) as running:
        yield Site(running, engine)
        engine.steps.release(1000)


@dataclass
class Event:
    kind: str
    id: str
    job: dict[str, Any]


@asynccontextmanager
async def listening(
    site: Live, job_id: str, last_event_id: str | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    async with (
        httpx.AsyncClient(base_url=site.url, timeout=PATIENCE_SECONDS) as http,
        http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line and "data" in fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def submit(site: Live, **fields: Any) -> dict[str, Any]:
    body = {"prompt": "a lighthouse", **fields}
    answered: dict[str, Any] = httpx.post(f"{site.url}/v1/jobs", json=body).json()
    return answered


async def until(found: AsyncIterator[Event], kind: str) -> Event:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in found:
            if event.kind == kind:
                return event
    raise AssertionError(f"the stream ended without {kind}")


async def at_step(site: Site, found: AsyncIterator[Event], step: int) -> Event:
    """Let the engine do one step and return the event that tells of it."""
    site.engine.steps.release()
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in found:
            if event.job["step"] == step:
                return event
    raise AssertionError(f"the stream ended before step {step}")


async def test_a_stream_tells_each_change_and_ends_with_the_job(site: Site) -> None:
    job = submit(site.live)
    async with listening(site.live, job["id"]) as found:
        first = await until(found, "status")
        assert first.job["id"] == job["id"]
        await at_step(site, found, 1)
        halfway = await at_step(site, found, 2)
        assert (halfway.kind, halfway.job["status"]) == ("progress", "Running")
        site.engine.steps.release(100)
        last = await until(found, "done")
        assert last.job["status"] == "Succeeded"
        assert len({first.id, halfway.id, last.id}) == 3
        assert [event async for event in found] == [], "nothing follows the end"
    read = httpx.get(f"{site.live.url}/v1/jobs/{job['id']}")
    assert last.job == read.json()
    assert f'"{last.id}"' == read.headers["etag"]


async def test_what_was_seen_is_not_sent_again(site: Site) -> None:
    job = submit(site.live)
    async with listening(site.live, job["id"]) as found:
        seen = await at_step(site, found, 1)
    async with listening(site.live, job["id"], seen.id) as found:
        site.engine.steps.release(100)
        first = await anext(found)
        assert first.id != seen.id
        assert first.job["step"] > 1
        last = first if first.kind == "done" else await until(found, "done")
    again = httpx.get(
        f"{site.live.url}/v1/jobs/{job['id']}/events", headers={"last-event-id": last.id}
    )
    assert again.status_code == 204, "which tells an EventSource not to come again"


async def test_who_comes_late_gets_the_present_state_at_once(site: Site) -> None:
    job = submit(site.live)
    site.engine.steps.release(100)
    async with listening(site.live, job["id"], "an older one") as found:
        await until(found, "done")
    async with listening(site.live, job["id"], "an older one") as found:
        assert [event.kind async for event in found] == ["done"]


async def test_a_stop_of_the_server_ends_the_streams(site: Site) -> None:
    job = submit(site.live)
    async with listening(site.live, job["id"]) as found:
        await until(found, "status")
        site.live.server.should_exit = True
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert "done" not in [event.kind async for event in found]
    site.engine.steps.release(100)


async def test_a_client_that_goes_is_let_go(site: Site) -> None:
    job = submit(site.live)
    watches = site.live.state.watcher._watches
    async with listening(site.live, job["id"]) as found:
        await until(found, "status")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while job["id"] not in watches:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while job["id"] in watches:
            await asyncio.sleep(0.01)


async def test_silence_is_broken_by_comments(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.05)
    job = submit(site.live)
    async with (
        httpx.AsyncClient(base_url=site.live.url, timeout=PATIENCE_SECONDS) as http,
        http.stream("GET", f"/v1/jobs/{job['id']}/events") as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                return
    raise AssertionError("no comment came")


class Counting(MemoryJobStore):
    """Counts reads, and holds them up between the reading and the answer."""

    reads = 0
    hold: asyncio.Event | None = None

    async def get(self, job_id: str) -> Job:
        self.reads += 1
        found = await super().get(job_id)
        if self.hold is not None:
            await self.hold.wait()
        return found


async def test_fifty_streams_of_one_job_share_the_reads() -> None:
    store = Counting()
    async with open_stack(jobs=store, watch_seconds=0.1) as stack:
        job = await stack.submit()
        streams = [
            asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}/events")) for _ in range(50)
        ]
        while store.reads < 50:
            await asyncio.sleep(0.01)
        before = store.reads
        await asyncio.sleep(0.5)
        assert store.reads - before <= 7
        await _run_to_the_end(stack, job["id"])
        for answer in await asyncio.gather(*streams):
            assert answer.text.count("event: done") == 1


async def test_a_read_that_began_before_the_stream_is_no_news() -> None:
    store = Counting()
    async with open_stack(jobs=store) as stack:
        job = await stack.submit()
        early = asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}/events"))
        while job["id"] not in stack.state.watcher._watches:
            await asyncio.sleep(0)
        store.hold = asyncio.Event()
        before = store.reads
        while store.reads == before:  # the shared read has its old record and is held up
            await asyncio.sleep(0.005)
        hold, store.hold = store.hold, None
        await stack.begin(job["id"])
        late = asyncio.create_task(stack.http.get(f"/v1/jobs/{job['id']}/events"))
        while stack.state.watcher._watches[job["id"]].waiters < 2:
            await asyncio.sleep(0)
        hold.set()
        await asyncio.sleep(0.05)
        await stack.finish(job["id"])
        told = [
            json.loads(line.removeprefix("data: "))["status"]
            for line in (await late).text.splitlines()
            if line.startswith("data: ")
        ]
        assert told == ["Running", "Succeeded"]
        await early


async def test_a_preview_has_an_event_and_can_be_fetched_until_the_end(site: Site) -> None:
    job = submit(site.live, partial_images=1, num_inference_steps=4)
    async with listening(site.live, job["id"]) as found:
        site.engine.steps.release(2)
        shown = (await until(found, "preview")).job["preview"]
        assert shown["step"] == 2
        async with httpx.AsyncClient() as http:
            answer = await http.get(shown["url"])
            assert (answer.status_code, answer.content[:4]) == (200, b"\x89PNG")
            assert answer.headers["cache-control"] == "no-store"
            site.engine.steps.release(2)
            done = await until(found, "done")
            assert (done.job["status"], done.job["preview"]) == ("Succeeded", None)
            assert (await http.get(shown["url"])).status_code == 404


async def test_no_text_breaks_a_line(stack: Stack) -> None:
    job = await stack.submit(prompt="one\u2028two\u0085three\nfour")
    await _run_to_the_end(stack, job["id"])
    answer = await stack.http.get(f"/v1/jobs/{job['id']}/events")
    [data] = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert json.loads(data[6:])["input"]["prompt"] == "one\u2028two\u0085three\nfour"


async def test_there_are_no_events_of_another_tenants_job(stack: Stack) -> None:
    job = await stack.submit()
    stored = await stack.state.jobs.get(job["id"])
    await stack.state.jobs.compare_and_set(
        stored.model_copy(update={"tenant": "somebody-else"}), stored.version
    )
    assert (await stack.http.get(f"/v1/jobs/{job['id']}/events")).status_code == 404


async def _run_to_the_end(stack: Stack, job_id: str) -> None:
    await stack.begin(job_id)
    await stack.finish(job_id)
