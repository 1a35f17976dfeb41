"""HEAD where GET is cheap, and an honest no to what is not supported."""

import asyncio

import httpx
import pytest

from tests.api.stack import PROMPT, Stack
from tests.live import Live


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/images/0", "/v1/models", "/livez", "/api/health"],
)
def test_head_is_get_without_its_body(server: Live, path: str) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        body = {"prompt": PROMPT, "seed": 1}
        headers = {"prefer": "wait=30", "idempotency-key": "for-head"}
        job = http.post("/v1/jobs", json=body, headers=headers).json()
        got = http.get(path.format(id=job["id"]))
        head = http.head(path.format(id=job["id"]))
        assert head.status_code == got.status_code == 200
        assert head.content == b""
        for name in ("content-type", "content-length", "etag"):
            assert head.headers.get(name) == got.headers.get(name)
        assert http.head("/v1/jobs/local-0").status_code == 404
        assert http.get("/livez").status_code == 200, "the connection is still in step"


async def test_head_is_not_for_a_stream(stack: Stack) -> None:
    job = await stack.submit()
    async with asyncio.timeout(10):
        assert (await stack.http.head(f"/v1/jobs/{job['id']}/events")).status_code == 405


async def test_repeatability_is_refused_rather_than_ignored(stack: Stack) -> None:
    answer = await stack.http.post(
        "/v1/jobs", json={"prompt": PROMPT}, headers={"Repeatability-Request-ID": "1"}
    )
    assert answer.status_code == 501
    assert answer.json()["error"]["code"] == "NotSupported" == answer.headers["x-ms-error-code"]
    assert answer.json()["error"]["target"] == "Repeatability-Request-ID"
    assert "Idempotency-Key" in answer.json()["error"]["message"]
    assert await stack.messages() == []


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "GET, POST"),
        ("/v1/jobs/1", "DELETE, GET"),
        ("/v1/jobs/1:cancel", "POST"),
        ("/v1/jobs/1:resubmit", "POST"),
        ("/v1/dead-letters/short/1", "GET"),
        ("/v1/dead-letters/short/1:discard", "POST"),
        ("/api/generate", "GET, POST"),
    ],
)
async def test_allow_names_every_method_of_the_path(stack: Stack, path: str, allowed: str) -> None:
    answer = await stack.http.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
