"""POST /v1/images/generations: OpenAI's own package, and what it must be told."""

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from darkroom.jobs import JobError, fail
from tests.api.stack import PROMPT, Stack, open_stack
from tests.live import Live, live
from worker.engines.fake import FakeEngine, fake_picture

ROUTE = "/v1/images/generations"


@pytest.fixture
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    picture.load()
    return picture


def test_the_openai_package_generates_a_picture(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt=PROMPT,
        model="demo",
        n=2,
        size="128x64",  # type: ignore[arg-type]  # the package lists OpenAI's own sizes
        response_format="b64_json",
        user="somebody",
        quality="standard",
        style="vivid",
        extra_body={"seed": 7, "num_inference_steps": 3, "guidance_scale": 2.5},
    )
    assert answer.data is not None
    pictures = [opened(base64.b64decode(one.b64_json or "")) for one in answer.data]
    assert [picture.size for picture in pictures] == [(128, 64), (128, 64)]
    expected = [fake_picture(PROMPT, seed, 128, 64).tobytes() for seed in (7, 8)]
    assert [picture.tobytes() for picture in pictures] == expected
    assert all(one.url is None for one in answer.data)
    assert (answer.size, answer.output_format) == ("128x64", "png")


def test_an_address_leads_to_the_picture(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, size="auto", extra_body={"seed": 3})
    assert answer.data is not None
    assert answer.data[0].b64_json is None
    png = httpx.get(answer.data[0].url or "").content
    assert opened(png).tobytes() == fake_picture(PROMPT, 3, 64, 64).tobytes()


def test_a_refusal_is_the_packages_own_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt=PROMPT, n=99)
    assert refused.value.param == "n"
    assert refused.value.code == "InvalidParameter"
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as unknown:
        client.images.generate(prompt=PROMPT, model="dall-e-3")
    assert unknown.value.code == "UnknownModel"


def test_a_long_job_is_told_by_its_id_and_not_asked_for_again(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.2)
    with (
        live(tmp_path, engine, sync_wait_seconds=0.3) as slow,
        openai.OpenAI(base_url=f"{slow.url}/v1", api_key="any", max_retries=2) as client,
    ):
        with pytest.raises(openai.InternalServerError) as late:
            client.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 4})
        assert late.value.status_code == 504
        assert late.value.code == "JobTimedOut"
        [job] = httpx.get(f"{slow.url}/v1/jobs").json()["value"]
        assert job["id"] in late.value.message
        ended = httpx.get(f"{slow.url}/v1/jobs/{job['id']}?wait=30", timeout=40).json()
        assert ended["status"] == "Succeeded", "the job goes on"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": " "}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"size": "big"}, "size"),
        ({"size": "100x100"}, "size"),
        ({"size": "4096x64"}, "size"),
        ({"response_format": "jpeg"}, "response_format"),
        ({"output_format": "webp"}, "output_format"),
        ({"background": "transparent"}, "background"),
        ({"output_compression": 50}, "output_compression"),
        ({"stream": True}, "stream"),
        ({"partial_images": 2}, "partial_images"),
        ({"quality": 5}, "quality"),
        ({"seed": "7"}, "seed"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"guidance_scale": 99}, "guidance_scale"),
        ({"image": "aGk="}, "image"),
        ({"steps": 5}, "steps"),
    ],
)
async def test_what_cannot_be_had_is_refused_in_their_shape(
    stack: Stack, fields: dict[str, Any], param: str
) -> None:
    answer = await stack.http.post(ROUTE, json={"prompt": PROMPT, **fields})
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, answer.headers["x-ms-error-code"])
    assert await stack.messages() == []


async def test_framework_errors_have_their_shape_too(stack: Stack) -> None:
    for answer in (
        await stack.http.post(ROUTE, content=b"{", headers={"content-type": "application/json"}),
        await stack.http.post(ROUTE, content=b"x", headers={"content-type": "text/plain"}),
        await stack.http.get(ROUTE),
    ):
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("code", "status"), [("UnsafeContent", 400), ("GenerationFailed", 502), ("Canceled", 502)]
)
async def test_a_job_without_pictures_is_an_error(code: str, status: int) -> None:
    async with open_stack() as stack:
        asking = asyncio.create_task(stack.http.post(ROUTE, json={"prompt": PROMPT}))
        while not (found := (await stack.http.get("/v1/jobs")).json()["value"]):
            await asyncio.sleep(0.01)
        job = await stack.state.jobs.get(found[0]["id"])
        if code == "Canceled":
            await stack.http.post(f"/v1/jobs/{job.id}:cancel")
        else:
            error = JobError(code=code, message="it would not")
            await stack.state.jobs.compare_and_set(fail(job, stack.clock.now(), error), job.version)
        answer = await asking
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == ("UnsafeContent" if status == 400 else "JobFailed")
        if status == 502:
            assert job.id in answer.json()["error"]["message"]
            assert answer.headers["x-should-retry"] == "false"


async def test_one_key_makes_one_job(stack: Stack) -> None:
    headers = {"idempotency-key": "once"}
    asking = [
        asyncio.create_task(stack.http.post(ROUTE, json={"prompt": PROMPT}, headers=headers))
        for _ in range(2)
    ]
    while not (found := (await stack.http.get("/v1/jobs")).json()["value"]):
        await asyncio.sleep(0.01)
    await stack.begin(found[0]["id"])
    await stack.finish(found[0]["id"])
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200, 200]
    assert len((await stack.http.get("/v1/jobs")).json()["value"]) == 1
