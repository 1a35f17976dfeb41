"""What a worker remembers, and what comes of it: jobs are handed on, and the cache evicts well."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from darkroom.catalog import Model
from darkroom.jobs import JobState
from tests.worker.batching import all_ended, pool_of
from tests.worker.site import Site
from tests.worker.test_scheduler import job
from worker.engine_thread import EngineThread
from worker.engines.base import Engine
from worker.engines.fake import FakeEngine
from worker.lately import REMEMBERED, Lately
from worker.model_cache import ModelCache


def site_of(memory_site: Site, **model: float) -> Site:
    """A pool of two, whose models take long to load."""
    slow = memory_site.catalog.models[0].model_copy(update={"load_seconds": 60.0, **model})
    catalog = memory_site.catalog.model_copy(update={"models": (slow,)})
    return pool_of(memory_site.changed(catalog=catalog), replicas={"max": 3})


class Counting(FakeEngine):
    """Counts its loads and calls."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.calls = 0
        super().__init__(fail=self._count, fail_load=lambda model: self.loads.append(model.name))

    def _count(self, batch: object) -> None:
        self.calls += 1


async def ended(site: Site) -> JobState:
    return (await site.ended(await site.submit(), seconds=10)).status


async def test_of_two_free_workers_the_one_that_has_the_model_runs_the_jobs(
    memory_site: Site,
) -> None:
    site, first, second = site_of(memory_site), Counting(), Counting()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(site.worker(first))
        assert await ended(site) is JobState.SUCCEEDED
        await stack.enter_async_context(site.worker(second))
        await asyncio.sleep(0.3)  # both wait for messages
        for _ in range(6):
            assert await ended(site) is JobState.SUCCEEDED
        await site.settled()
    assert (first.loads, second.loads) == (["demo"], [])
    assert first.calls == 7


async def test_a_worker_that_nobody_helps_runs_the_job_after_one_round(memory_site: Site) -> None:
    site, engine = site_of(memory_site), Counting()
    async with site.worker(engine):
        job_id = await site.submit()
        ended = await site.ended(job_id, seconds=10)
        await site.settled()
    assert (ended.status, ended.attempts) == (JobState.SUCCEEDED, 1)
    assert site.returned("abandoned", "Preempted") == 1


async def test_a_job_whose_load_is_quick_is_not_handed_on(memory_site: Site) -> None:
    site, engine = site_of(memory_site, load_seconds=1.0), Counting()
    async with site.worker(engine):
        await all_ended(site, [await site.submit()])
        await site.settled()
    assert site.returned("abandoned", "Preempted") == 0


def test_only_the_last_jobs_are_remembered() -> None:
    lately = Lately()
    for number in range(REMEMBERED + 1):
        lately.start([job(str(number), model=str(number), tenant="t" if number else "first")])
        lately.hand_on([str(number)])
    assert len(lately.models) == len(lately.passed) == REMEMBERED
    assert "first" not in lately.tenants
    assert lately.models[-1] == str(REMEMBERED)


def test_what_the_scheduler_named_makes_room_before_the_least_recently_used() -> None:
    engine: Engine = FakeEngine()
    cache = ModelCache(engine, device_bytes=3)
    thread = EngineThread(engine, cache)

    def ask(name: str) -> None:
        fields = {"seconds_per_megapixel_step": 1.0, "licence": "MIT", "revision": "1"}
        thread.ready(Model.model_validate({"name": name, "source": name, **fields}), Path("x"))

    for name in "abc":
        ask(name)
    thread.evict_first(("b", "c"))
    ask("d")
    assert cache.loaded == ("a", "c", "d")
    ask("e")
    assert cache.loaded == ("a", "d", "e")
    ask("f")
    assert cache.loaded == ("d", "e", "f")
    thread.close()
