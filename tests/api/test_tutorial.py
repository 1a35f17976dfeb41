"""The tutorial's API: its own curl, its shapes, and an honest health."""

import asyncio
import base64
import io
import json
import shutil
import subprocess
from typing import Any

import httpx
import pytest
from PIL import Image

from darkroom.errors import QueueUnavailable
from darkroom.queues.base import QueueDepth
from darkroom.queues.memory import MemoryJobQueue
from tests.api.stack import PROMPT, Stack, open_stack
from tests.live import Live
from worker.engines.fake import fake_picture

ROUTE = "/api/generate"
BODY = '{"prompt": "a lighthouse at dusk", "num_steps": 20, "guidance_scale": 7.5}'


def tutorial_curl(url: str) -> bytes:
    """Run the tutorial's command; where there is no curl, send what it sends."""
    kind = "Content-Type: application/json"
    if shutil.which("curl"):
        command = ["curl", "-s", "-X", "POST", f"{url}{ROUTE}", "-H", kind, "-d", BODY]
        return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    headers = {"content-type": "application/json"}
    return httpx.post(f"{url}{ROUTE}", content=BODY, headers=headers, timeout=60).content


def check_picture(answered: dict[str, Any], width: int, height: int) -> Image.Image:
    assert answered.keys() == {"success", "prompt", "image", "format", "width", "height"}
    assert answered["success"] is True
    assert answered["prompt"] == PROMPT
    assert answered["format"] == "png"
    picture = Image.open(io.BytesIO(base64.b64decode(answered["image"], validate=True)))
    assert picture.size == (answered["width"], answered["height"]) == (width, height)
    return picture


def test_the_tutorials_curl_works_unchanged(server: Live) -> None:
    check_picture(json.loads(tutorial_curl(server.url)), 64, 64)


def test_every_field_has_its_effect(server: Live) -> None:
    asked = {"prompt": PROMPT, "width": 128, "height": 64, "seed": 5, "num_steps": 3}
    asked |= {"negative_prompt": "people", "guidance_scale": 3}
    posted = httpx.post(f"{server.url}{ROUTE}", json=asked, timeout=60)
    got = httpx.get(f"{server.url}{ROUTE}", params=asked, timeout=60)  # type: ignore[arg-type]
    for answer in (posted, got):
        picture = check_picture(answer.json(), 128, 64)
        assert picture.tobytes() == fake_picture(PROMPT, 5, 128, 64).tobytes()
        job = httpx.get(answer.headers["operation-location"]).json()
        shown = job["input"]
        assert (shown["num_inference_steps"], shown["guidance_scale"]) == (3, 3)
        assert shown["negative_prompt"] == "people"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "\x00"}, "prompt"),
        ({"prompt": PROMPT, "num_steps": 0}, "num_steps"),
        ({"prompt": PROMPT, "num_steps": 150}, "num_steps"),
        ({"prompt": PROMPT, "width": 100}, "width"),
        ({"prompt": PROMPT, "height": 5000}, "height"),
        ({"prompt": PROMPT, "guidance_scale": -1}, "guidance_scale"),
    ],
)
async def test_a_refusal_is_one_line_that_names_the_field(
    stack: Stack, fields: dict[str, Any], named: str
) -> None:
    for answer in (
        await stack.http.post(ROUTE, json=fields),
        await stack.http.get(ROUTE, params=fields),
    ):
        assert answer.status_code == 400, answer.text
        assert answer.json().keys() == {"error"}
        assert named in answer.json()["error"]
    assert await stack.messages() == []


async def test_a_body_that_is_no_json_is_one_line_too(stack: Stack) -> None:
    headers = {"content-type": "application/json"}
    answer = await stack.http.post(ROUTE, content=b"{", headers=headers)
    assert (answer.status_code, answer.json().keys()) == (400, {"error"})


async def test_who_waits_too_long_is_told_which_job_goes_on() -> None:
    async with open_stack(sync_wait_seconds=0.05) as stack:
        answer = await stack.http.get(ROUTE, params={"prompt": PROMPT})
        assert answer.status_code == 504
        [job] = (await stack.http.get("/v1/jobs")).json()["value"]
        assert job["id"] in answer.json()["error"]
        assert not job["cancel_requested"]


async def test_a_stop_lets_those_who_wait_go(stack: Stack) -> None:
    asking = asyncio.create_task(stack.http.get(ROUTE, params={"prompt": PROMPT}))
    while not stack.state.watcher._watches:
        await asyncio.sleep(0)
    stack.state.watcher.close()
    assert (await asyncio.wait_for(asking, 5)).status_code == 504


async def test_health_says_only_what_this_tier_can_know(stack: Stack) -> None:
    answer = await stack.http.get("/api/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "healthy",
        "gpu_available": None,
        "gpu_info": None,
        "model_loaded": None,
    }


class _Away(MemoryJobQueue):
    async def depth(self) -> QueueDepth:
        raise QueueUnavailable("away")


async def test_health_is_not_always_healthy() -> None:
    from darkroom.clock import FakeClock

    away = _Away(lease_seconds=30, max_delivery_count=3, clock=FakeClock())
    async with open_stack(queues={"short": away, "long": away}) as stack:
        answer = await stack.http.get("/api/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")


async def test_a_look_at_the_head_makes_no_picture(stack: Stack) -> None:
    assert (await stack.http.head(ROUTE, params={"prompt": PROMPT})).status_code == 405
    assert await stack.messages() == []
