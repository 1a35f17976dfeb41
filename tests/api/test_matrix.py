"""Every route of openapi.json, tried with everything that must not let anybody in.

`ROLES` is written by hand: a new route fails here until somebody says who may call it.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.openapi import FILE
from darkroom.jobs import new_job_id
from tests.api.credentials import ALL, Issuer, Keys, bearer, serving
from tests.api.stack import PROMPT, FakeClock, Stack, open_stack

SUBMIT, READ, OPERATE = ALL[0], ALL[1], ALL[2]
ROLES: dict[str, str | None] = {
    "POST /v1/jobs": SUBMIT,
    "GET /v1/jobs": READ,
    "GET /v1/jobs/{job_id}": READ,
    "DELETE /v1/jobs/{job_id}": SUBMIT,
    "POST /v1/jobs/{job_id}:cancel": SUBMIT,
    "POST /v1/jobs/{job_id}:resubmit": SUBMIT,
    "POST /v1/jobs/{job_id}:replay-webhook": SUBMIT,
    "GET /v1/jobs/{job_id}/events": READ,
    "GET /v1/jobs/{job_id}/images/{index}": READ,
    "GET /v1/jobs/{job_id}/preview": READ,
    "GET /v1/models": READ,
    "GET /v1/usage": READ,
    "GET /v1/dead-letters": OPERATE,
    "GET /v1/dead-letters/{pool}/{message_id}": OPERATE,
    "POST /v1/dead-letters/{pool}/{message_id}:resubmit": OPERATE,
    "POST /v1/dead-letters/{pool}/{message_id}:discard": OPERATE,
    "POST /v1/images/generations": SUBMIT,
    "POST /api/generate": SUBMIT,
    "GET /api/generate": SUBMIT,
    "GET /api/health": None,
    "GET /livez": None,
    "GET /readyz": None,
    "GET /metrics": None,
}
ROUTES = [
    f"{method.upper()} {path}"
    for path, operations in json.loads(FILE.read_text())["paths"].items()
    for method in operations
]
GUARDED = [route for route in ROUTES if ROLES.get(route)]
OF_A_JOB = [route for route in GUARDED if "{job_id}" in route]
BODY = {"prompt": PROMPT}
VARYING = {"x-ms-request-id", "ratelimit", "date"}


@dataclass(frozen=True)
class Door:
    """A stack that takes keys and tokens, and a job of the tenant ``acme``."""

    stack: Stack
    issuer: Issuer
    keys: Keys
    job_id: str
    owner: dict[str, str]

    async def knock(
        self, route: str, headers: dict[str, str], job_id: str | None = None
    ) -> httpx.Response:
        method, path = route.split(" ")
        filled = path.replace("{job_id}", job_id or self.job_id).replace("{index}", "0")
        filled = filled.replace("{pool}", "short").replace("{message_id}", self.job_id)
        body = BODY if method == "POST" else None
        async with asyncio.timeout(20):
            return await self.stack.http.request(method, filled, json=body, headers=headers)

    async def is_welcome(self, route: str, headers: dict[str, str]) -> bool:
        """Ask for what is answered at once: a body that is refused, a job that there is not."""
        method, path = route.split(" ")
        nothing = new_job_id("local", "acme")
        filled = path.replace("{job_id}", nothing).replace("{index}", "0")
        filled = filled.replace("{pool}", "short").replace("{message_id}", nothing)
        async with asyncio.timeout(20):
            answer = await self.stack.http.request(
                method, filled, json={} if method == "POST" else None, headers=headers
            )
        return answer.status_code not in (401, 403)


@asynccontextmanager
async def door(folder: Path) -> AsyncIterator[Door]:
    keys = Keys(folder / "keys.yaml")
    owner = bearer(keys.add("acme", roles=ALL))
    with serving(Issuer(FakeClock())) as issuer:
        settings = {**issuer.settings(), "auth": "api_keys,entra", "keys_file": keys.path}
        async with open_stack(**settings) as stack:
            issuer.clock = stack.clock
            answer = await stack.http.post("/v1/jobs", json=BODY, headers=owner)
            yield Door(stack, issuer, keys, answer.json()["id"], owner)


def strangers(at: Door) -> dict[str, dict[str, str]]:
    """Credentials that are none, each with every role."""
    now = at.stack.clock.now()
    seconds = int(now.timestamp())
    made = {
        "no credential": {},
        "wrong audience": bearer(at.issuer.token(aud="another-api")),
        "expired token": bearer(at.issuer.token(nbf=seconds - 7200, exp=seconds - 3600)),
        "alg none": bearer(at.issuer.unsigned()),
        "key confusion": bearer(at.issuer.confused()),
        "revoked key": bearer(at.keys.add("acme", roles=ALL, revoked=True)),
        "expired key": bearer(
            at.keys.add("acme", roles=ALL, expires_at=(now - timedelta(hours=1)).isoformat())
        ),
        "made-up key": bearer("dk_" + "A" * 43),
    }
    at.stack.clock.advance(1)  # so that the file is read again
    return made


def test_somebody_has_said_who_may_call_each_route() -> None:
    assert [route for route in ROUTES if route not in ROLES] == []
    assert len(GUARDED) >= 10


@pytest.mark.parametrize("route", GUARDED)
async def test_nobody_without_a_good_credential_gets_in(tmp_path: Path, route: str) -> None:
    async with door(tmp_path) as at:
        before = await at.stack.state.jobs.get(at.job_id)
        for what, headers in strangers(at).items():
            answer = await at.knock(route, headers)
            assert answer.status_code == 401, what
            assert answer.headers["x-ms-error-code"] == "Unauthenticated", what
            assert "www-authenticate" in answer.headers, what
            assert at.job_id not in answer.text, what
        assert await at.stack.state.jobs.get(at.job_id) == before
        assert await at.stack.messages() == [at.job_id]
        assert await at.is_welcome(route, at.owner)


@pytest.mark.parametrize("route", GUARDED)
async def test_every_role_but_the_right_one_is_403(tmp_path: Path, route: str) -> None:
    async with door(tmp_path) as at:
        role = ROLES[route]
        others = [one for one in ALL if one != role]
        lacking = {
            "key": bearer(at.keys.add("acme", roles=others)),
            "token": bearer(at.issuer.token(roles=others)),
        }
        having = {
            "key": bearer(at.keys.add("acme", roles=[role])),
            "token": bearer(at.issuer.token(roles=[role])),
        }
        at.stack.clock.advance(1)
        for what, headers in lacking.items():
            for job_id in (at.job_id, new_job_id("local", "acme")):
                answer = await at.knock(route, headers, job_id)
                assert answer.status_code == 403, what
                assert answer.headers["x-ms-error-code"] == "Forbidden"
                assert str(role) in answer.headers["www-authenticate"]
        for what, headers in having.items():
            assert await at.is_welcome(route, headers), what


def telling(answer: httpx.Response) -> Any:
    return (
        answer.status_code,
        answer.content,
        {name: text for name, text in answer.headers.items() if name not in VARYING},
    )


@pytest.mark.parametrize("route", OF_A_JOB)
@pytest.mark.parametrize("state", ["waiting", "running", "finished"])
async def test_another_tenants_job_is_as_if_it_did_not_exist(
    tmp_path: Path, route: str, state: str
) -> None:
    async with door(tmp_path) as at:
        if state != "waiting":
            await at.stack.begin(at.job_id)
        if state == "finished":
            await at.stack.finish(at.job_id)
        before = await at.stack.state.jobs.get(at.job_id)
        other = {
            "key": bearer(at.keys.add("umbrella", roles=ALL)),
            "token": bearer(at.issuer.token()),
            "token of another directory's namesake": bearer(at.issuer.token(oid="acme")),
        }
        at.stack.clock.advance(1)
        for what, headers in other.items():
            foreign = await at.knock(route, headers)
            assert foreign.status_code == 404, what
            for tenant in ("acme", "umbrella"):
                nothing = await at.knock(route, headers, new_job_id("local", tenant))
                assert telling(nothing) == telling(foreign), what
        assert await at.stack.state.jobs.get(at.job_id) == before


@pytest.mark.parametrize("route", [route for route in ROUTES if route not in GUARDED])
async def test_an_open_route_tells_a_stranger_nothing_of_a_job(tmp_path: Path, route: str) -> None:
    async with door(tmp_path) as at:
        answer = await at.knock(route, {})
        assert answer.status_code == 200
        assert at.job_id not in answer.text
        assert "acme" not in answer.text


async def test_a_list_holds_nothing_of_another_tenant(tmp_path: Path) -> None:
    async with door(tmp_path) as at:
        for headers in (bearer(at.issuer.token()), bearer(at.keys.add("umbrella"))):
            at.stack.clock.advance(1)
            listed = await at.stack.http.get("/v1/jobs", headers=headers)
            assert listed.json() == {"value": []}
        mine = await at.stack.http.get("/v1/jobs", headers=at.owner)
        assert [job["id"] for job in mine.json()["value"]] == [at.job_id]
