"""Probes, metrics, models, pages."""

import re

import pytest

from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.jobs import Job
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues.base import QueueDepth
from darkroom.queues.memory import MemoryJobQueue
from tests.api.stack import CATALOG, PROMPT, Stack, open_stack


class _Away(MemoryJobQueue):
    async def depth(self) -> QueueDepth:
        raise QueueUnavailable("away")


def _queues():
    return {
        "short": MemoryJobQueue(lease_seconds=30, max_delivery_count=3),
        "long": _Away(lease_seconds=30, max_delivery_count=3),
    }


async def test_ready_when_every_part_answers(stack: Stack) -> None:
    answer = await stack.http.get("/readyz")
    assert answer.status_code == 200
    assert set(answer.json()["checks"].values()) == {"ok"}


async def test_not_ready_when_a_queue_is_away_but_alive() -> None:
    async with open_stack(queues=_queues()) as stack:
        answer = await stack.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {
            "jobs": "ok",
            "queue short": "ok",
            "queue long": "QueueUnavailable",
        }
        assert (await stack.http.get("/livez")).status_code == 200


async def test_not_ready_when_the_store_is_away() -> None:
    class Away(MemoryJobStore):
        async def get(self, job_id: str) -> Job:
            raise StoreUnavailable("away")

    async with open_stack(jobs=Away()) as stack:
        answer = await stack.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["jobs"] == "StoreUnavailable"


async def test_an_unknown_depth_is_not_zero() -> None:
    async with open_stack(queues=_queues()) as stack:
        metrics = (await stack.http.get("/metrics")).text
    assert 'darkroom_queue_depth{pool="short",state="active"} 0.0' in metrics
    assert 'darkroom_queue_depth{pool="long",state="active"} NaN' in metrics


async def test_metrics_never_name_a_job(stack: Stack) -> None:
    job = await stack.submit()
    await stack.http.get(f"/v1/jobs/{job['id']}")
    await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    await stack.http.get("/v1/jobs/x/images/0")
    await stack.http.get("/wp-login.php")
    metrics = (await stack.http.get("/metrics")).text
    assert job["id"] not in metrics
    assert "wp-login" not in metrics
    routes = set(re.findall(r'request_seconds_count{[^}]*route="([^"]+)"', metrics))
    assert routes == {
        "/v1/jobs",
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}:cancel",
        "/v1/jobs/{job_id}/images/{index}",
        "unmatched",
    }


async def test_a_model_says_what_may_be_asked_of_it(stack: Stack) -> None:
    listed = (await stack.http.get("/v1/models")).json()
    assert listed["default_model"] == "demo"
    demo, words = listed["value"]
    assert demo["limits"]["max_side"] == 512
    assert demo["schedulers"] == ["DDIMScheduler", "EulerDiscreteScheduler"]
    assert demo["loras"] == ["ink"]
    assert demo["pools"] == ["short", "long"]
    assert demo["max_gpu_seconds"] == 20
    assert words["kinds"] == ["text_to_image"]
    assert "source" not in demo, "where weights lie is nobody's business"
    assert [model.name for model in CATALOG.models] == [demo["name"], words["name"]]


@pytest.mark.parametrize("path", ["/", "/docs", "/ui/page.js", "/ui/style.css"])
async def test_pages_load_nothing_from_elsewhere(stack: Stack, path: str) -> None:
    answer = await stack.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    loaded = re.findall(r"""(?:src|href|url\(|import|from)\s*=?\s*["']?(https?:)?//""", answer.text)
    assert not loaded
    if answer.headers["content-type"].startswith("text/html"):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


async def test_a_job_may_not_be_kept_by_a_cache_unasked(stack: Stack) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT})
    assert answer.headers["cache-control"] == "private, no-cache"
