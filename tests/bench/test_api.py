"""The bench of the API runs and tells what it says it tells; its figures are not judged here."""

from pathlib import Path

from bench import api_submits, api_waiters
from bench.api_client import submits
from bench.api_servers import ours


async def test_callers_who_wait_are_all_held_open_while_others_submit(tmp_path: Path):
    shared = api_waiters.crowds(12, 2)[1]
    cost = await api_waiters.measure(tmp_path, shared, 3)
    figures = api_waiters.summary([cost])
    assert (shared.jobs, figures["shared_waiters"]) == (10, 14)
    assert figures["shared_submit_p50_ratio"] > 0
    assert figures["shared_idle_submit_p95_ms"] >= figures["shared_idle_submit_p50_ms"]


async def test_ours_and_the_bare_endpoint_take_the_same_submits(tmp_path: Path):
    found = await api_submits.measure(tmp_path, ["ours", "bare"], [1, 2], rounds=1, count=4)
    figures = api_submits.summary(found)
    assert figures["to_bare_per_second_2"] == (
        figures["ours_per_second_2"] / figures["bare_per_second_2"]
    )
    assert "to_celery_per_second_2" not in figures


async def test_every_submit_of_a_load_makes_a_job_of_its_own(tmp_path: Path):
    with ours(tmp_path) as server:
        load = await submits(server.port, 6, 3)
    assert len(set(load.job_ids)) == len(load.latencies) == 6
