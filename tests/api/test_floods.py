"""One tenant submits without end: real processes, real files, a slow fake engine."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.api.credentials import Keys, bearer
from tests.api.processes import api_process
from tests.worker.processes import Machine

CAP = 5
FLOODERS = 4
ROUNDS = 3
STEPS = 4
STEP_SECONDS = 0.03
BODY = {"prompt": "a lighthouse", "width": 64, "height": 64, "num_inference_steps": STEPS}


async def flood(http: httpx.AsyncClient, headers: dict[str, str], seen: Counter[int]) -> None:
    while True:  # Retry-After is for the polite
        answer = await http.post("/v1/jobs", json=BODY, headers=headers)
        seen[answer.status_code] += 1


async def job_of(http: httpx.AsyncClient, headers: dict[str, str]) -> dict[str, Any]:
    """Submit, wait for the end, and return the job."""
    answer = await http.post("/v1/jobs", json=BODY, headers=headers)
    assert answer.status_code == 202, answer.text
    path = f"/v1/jobs/{answer.json()['id']}"
    ended: dict[str, Any] = (await http.get(path, params={"wait": 60}, headers=headers)).json()
    assert ended["status"] == "Succeeded"
    return ended


async def started(http: httpx.AsyncClient, headers: dict[str, str]) -> list[str]:
    """When the tenant's newest jobs began, as text that sorts."""
    listed = await http.get("/v1/jobs", params={"limit": 100}, headers=headers)
    return [job["started_at"] for job in listed.json()["value"] if job["started_at"]]


async def test_a_flood_leaves_another_tenants_jobs_their_bound(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    keys = Keys(tmp_path / "keys.yaml")
    greedy, modest = bearer(keys.add("greedy")), bearer(keys.add("modest"))
    settings = {
        "CATALOG": machine.settings["DARKROOM_CATALOG"],
        "API_AUTH": "api_keys",
        "API_KEYS_FILE": str(keys.path),
        "API_MAX_QUEUED_JOBS": str(CAP),
        "API_REQUESTS_PER_MINUTE": "0",  # the flood is to meet the cap
    }
    seen: Counter[int] = Counter()
    with api_process(tmp_path, **settings) as api:
        async with (
            machine.worker(fake_step_seconds=STEP_SECONDS) as worker,
            httpx.AsyncClient(base_url=api.url, timeout=90) as http,
        ):
            await worker.logged("ready")
            flooding = [asyncio.create_task(flood(http, greedy, seen)) for _ in range(FLOODERS)]
            while seen[429] < 20:  # the line is full, and stays so
                await asyncio.sleep(0.01)
            jobs = [await job_of(http, modest) for _ in range(ROUNDS)]
            begun = await started(http, greedy)
            for task in flooding:
                task.cancel()
            await asyncio.gather(*flooding, return_exceptions=True)
    assert set(seen) == {202, 429}, "nothing else than accepted and told to wait"
    for job in jobs:
        before = [at for at in begun if job["created_at"] < at < job["started_at"]]
        # The cap's worth that waited, and one that the worker had in its hands already.
        assert len(before) <= CAP + 1, "more began before it than its tenant's bound"
    assert len(begun) > CAP, "the flood was being worked on meanwhile"
