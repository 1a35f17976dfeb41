"""What one tenant may ask for at a time, and what it is told."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.errors import TooManyRequests
from api.rates import Rates
from darkroom.errors import SettingsError, StoreUnavailable
from darkroom.jobs import Job
from darkroom.jobstores import sqlite
from darkroom.jobstores.base import Backlog, JobStore, Waiting
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.sqlite import Database
from tests.api.credentials import Keys, bearer
from tests.api.stack import CATALOG, PROMPT, FakeClock, Stack, memory_queue, open_stack

GPU_SECONDS = 128 * 128 / 1e6 * 20  # of a job that leaves everything to the defaults


async def submit(stack: Stack, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return await stack.http.post("/v1/jobs", json={"prompt": PROMPT, **fields}, headers=headers)


@asynccontextmanager
async def two_tenants(folder: Path, **settings: Any) -> AsyncIterator[Any]:
    keys = Keys(folder / "keys.yaml")
    acme, umbrella = bearer(keys.add("acme")), bearer(keys.add("umbrella"))
    async with open_stack(auth="api_keys", keys_file=keys.path, **settings) as stack:
        yield stack, acme, umbrella


def code(answer: httpx.Response) -> str:
    return str(answer.headers.get("x-ms-error-code", ""))


async def test_a_tenants_rate_ends_in_429_and_touches_nobody_else(tmp_path: Path) -> None:
    async with two_tenants(tmp_path, requests_per_minute=3) as (stack, acme, umbrella):
        for left in (2, 1, 0):
            answer = await stack.http.get("/v1/jobs", headers=acme)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"tenant";q=3;w=60'
            assert answer.headers["ratelimit"].startswith(f'"tenant";r={left};t=')
        refused = await stack.http.get("/v1/jobs", headers=acme)
        assert (refused.status_code, code(refused)) == (429, "TooManyRequests")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"].startswith('"tenant";r=0;t=')
        assert (await stack.http.get("/v1/jobs", headers=umbrella)).status_code == 200
        assert (await stack.http.get("/livez")).status_code == 200


async def test_a_counter_that_is_away_lets_requests_pass() -> None:
    rates = Rates(1, "async+redis://127.0.0.1:1/0")
    assert await rates.count("acme") == {}
    assert await rates.count("acme") == {}


@pytest.mark.parametrize("url", ["memory://", "async+nothing://x", "redis://127.0.0.1"])
def test_a_counter_that_cannot_be_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_API_LIMITS_URL"):
        Rates(10, url)


async def test_a_tenant_over_its_cap_of_jobs_is_told_which(tmp_path: Path) -> None:
    async with two_tenants(tmp_path, max_queued_jobs=2) as (stack, acme, umbrella):
        first = (await submit(stack, acme)).json()
        assert (await submit(stack, acme)).status_code == 202
        refused = await submit(stack, acme)
        assert (refused.status_code, code(refused)) == (429, "QueuedJobsLimit")
        assert refused.json()["error"]["target"] == "queued_jobs"
        assert "2 queued jobs" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        assert (await submit(stack, umbrella)).status_code == 202
        await stack.begin(first["id"])
        stack.clock.advance(1)
        assert (await submit(stack, acme)).status_code == 202
        assert (await submit(stack, acme)).status_code == 429


async def test_a_cap_of_gpu_seconds_counts_what_the_jobs_would_take(tmp_path: Path) -> None:
    settings = {"max_queued_gpu_seconds": 2.5 * GPU_SECONDS}
    async with two_tenants(tmp_path, **settings) as (stack, acme, _):
        assert (await submit(stack, acme)).status_code == 202
        refused = await submit(stack, acme, num_images=2)
        assert refused.status_code == 429
        assert refused.json()["error"]["target"] == "queued_gpu_seconds"
        assert (await submit(stack, acme)).status_code == 202


class SlowToCreate(MemoryJobStore):
    """Gives every request the time to look before the first one has written."""

    async def create(self, job: Job, *args: Any) -> Any:
        await asyncio.sleep(0.01)
        return await super().create(job, *args)

    async def backlog(self, tenant: str) -> Backlog:
        found = await super().backlog(tenant)
        await asyncio.sleep(0.01)
        return found


async def test_a_burst_at_the_same_moment_passes_no_cap(tmp_path: Path) -> None:
    clock = FakeClock()
    async with two_tenants(tmp_path, max_queued_jobs=5, jobs=SlowToCreate(clock)) as parts:
        stack, acme, _ = parts
        answers = await asyncio.gather(*(submit(stack, acme) for _ in range(40)))
        assert Counter(one.status_code for one in answers) == {202: 5, 429: 35}
        assert len(await stack.messages()) == 5


async def test_replicas_share_the_caps_through_the_records(tmp_path: Path) -> None:
    def store() -> JobStore:
        database = Database(tmp_path / "jobs.db", sqlite.SCHEMA, StoreUnavailable)
        return sqlite.SqliteJobStore(database)

    keys = Keys(tmp_path / "keys.yaml")
    acme = bearer(keys.add("acme"))
    settings: dict[str, Any] = {"auth": "api_keys", "keys_file": keys.path, "max_queued_jobs": 8}
    async with (
        open_stack(jobs=store(), **settings) as first,
        open_stack(jobs=store(), **settings) as second,
    ):
        taken = 0
        for turn in range(30):
            stack = (first, second)[turn % 2]
            taken += (await submit(stack, acme)).status_code == 202
            first.clock.advance(0.1)
            second.clock.advance(0.1)
        assert taken == 8
        await first.state.jobs.close()
        await second.state.jobs.close()


async def test_a_refused_submit_gives_its_place_back(tmp_path: Path) -> None:
    class Away(MemoryJobStore):
        is_away = True

        async def create(self, job: Job, *args: Any) -> Any:
            if self.is_away:
                raise StoreUnavailable("away")
            return await super().create(job, *args)

    jobs = Away(FakeClock())
    async with two_tenants(tmp_path, max_queued_jobs=1, jobs=jobs) as (stack, acme, _):
        assert (await submit(stack, acme)).status_code == 503
        jobs.is_away = False
        assert (await submit(stack, acme)).status_code == 202


async def test_without_credentials_nothing_is_counted(stack: Stack) -> None:
    answer = await submit(stack)
    assert "ratelimit" not in answer.headers
    assert stack.state.settings.limit("max_queued_jobs") == 0


async def test_a_waiting_job_says_where_it_stands(stack: Stack) -> None:
    jobs = []
    for expected in (1, 2, 3):
        job = await stack.submit()
        assert job["queue"]["position"] == expected
        jobs.append(job)
        stack.clock.advance(0.2)
    assert jobs[2]["queue"]["eta_seconds"] == pytest.approx(2 * GPU_SECONDS, abs=0.1)
    await stack.begin(jobs[0]["id"])
    stack.clock.advance(1)
    listed = (await stack.http.get("/v1/jobs")).json()["value"]
    assert [job["queue"] and job["queue"]["position"] for job in listed] == [2, 1, None]


async def test_what_calls_of_several_jobs_gain_shortens_the_wait() -> None:
    pools = [
        pool.model_copy(update={"concurrency": 8, "batch_speedup": 2.0}) for pool in CATALOG.pools
    ]
    async with open_stack(catalog=CATALOG.model_copy(update={"pools": tuple(pools)})) as stack:
        for _ in range(4):
            job = await stack.submit()
            stack.clock.advance(0.2)
        assert job["queue"]["eta_seconds"] == pytest.approx(3 * GPU_SECONDS / 2, abs=0.1)


async def test_retry_after_counts_the_wait(stack: Stack) -> None:
    for number in range(4):
        answer = await submit(stack, width=256, height=256, num_inference_steps=100)
        own = 256 * 256 / 1e6 * 100
        assert int(answer.headers["retry-after"]) == min(30, int(own * (number + 1)) + 1)
        stack.clock.advance(0.01)


class Unlisted(MemoryJobStore):
    """Like a store of many machines: it cannot list a pool's line."""

    async def line(self, pool: str, limit: int) -> list[Waiting] | None:
        return None


async def test_a_store_that_lists_no_line_gives_a_bound_by_the_queue() -> None:
    clock = FakeClock()
    async with open_stack(jobs=Unlisted(clock)) as stack:
        jobs = []
        for _ in range(5):
            jobs.append(await stack.submit())
            stack.clock.advance(2)
        places = []
        for job in jobs:
            read = (await stack.http.get(f"/v1/jobs/{job['id']}")).json()
            places.append(read["queue"]["position"])
        assert places == [1, 2, 3, 4, 5]


async def test_a_deadline_that_the_line_cannot_keep_is_refused_with_the_wait() -> None:
    async with open_stack() as stack:
        for _ in range(3):
            long = await submit(stack, width=256, height=256, num_inference_steps=100)
            assert long.status_code == 202
            stack.clock.advance(0.01)
        refused = await submit(stack, deadline_seconds=5)
        assert (refused.status_code, code(refused)) == (429, "DeadlineCannotBeMet")
        assert refused.json()["error"]["target"] == "deadline_seconds"
        assert int(refused.headers["retry-after"]) >= 15
        assert (await submit(stack, deadline_seconds=60)).status_code == 202
        assert (await submit(stack)).status_code == 202


async def test_with_nobody_before_it_no_deadline_is_refused(stack: Stack) -> None:
    answer = await submit(stack, deadline_seconds=1, num_inference_steps=100)
    assert answer.status_code == 202


async def test_a_full_pool_is_503_with_the_reason() -> None:
    async with open_stack(max_pool_jobs=2) as stack:
        for _ in range(2):
            assert (await submit(stack)).status_code == 202
        refused = await submit(stack)
        assert (refused.status_code, code(refused)) == (503, "QueueFull")
        assert "pool short" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        other_pool = await submit(stack, num_inference_steps=100, num_images=4, width=192)
        assert other_pool.status_code == 202, "the long pool has room"


async def test_what_cannot_be_estimated_refuses_nobody() -> None:
    class Dumb(MemoryJobStore):
        async def line(self, pool: str, limit: int) -> list[Waiting] | None:
            raise StoreUnavailable("away")

    async with open_stack(jobs=Dumb(FakeClock()), max_pool_jobs=1) as stack:
        assert (await submit(stack)).status_code == 202
        stack.clock.advance(timedelta(seconds=5).total_seconds())
        assert (await submit(stack, deadline_seconds=1)).status_code != 500


async def test_a_line_is_read_once_a_second_however_many_ask() -> None:
    class Counting(MemoryJobStore):
        reads = 0

        async def line(self, pool: str, limit: int) -> Any:
            self.reads += 1
            return await super().line(pool, limit)

    jobs = Counting(FakeClock())
    queues = {pool.name: memory_queue(FakeClock()) for pool in CATALOG.pools}
    async with open_stack(jobs=jobs, queues=queues) as stack:
        job = await stack.submit()
        for _ in range(20):
            await stack.http.get(f"/v1/jobs/{job['id']}")
        assert jobs.reads == 1


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
async def test_replicas_share_one_rate_where_redis_counts(tmp_path: Path) -> None:
    socket_path = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket_path), "--save", ""]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            while not socket_path.exists():
                await asyncio.sleep(0.02)
        url = f"async+redis+unix://{socket_path}"
        first, second = Rates(3, url), Rates(3, url)
        left = [(await each.count("acme"))["ratelimit"] for each in (first, second, first)]
        assert [text.split(";")[1] for text in left] == ["r=2", "r=1", "r=0"]
        with pytest.raises(TooManyRequests):
            await second.count("acme")
        assert await second.count("umbrella")
    finally:
        process.terminate()
        await process.wait()
