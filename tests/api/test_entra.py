"""Access tokens of Entra ID, from an issuer on this machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.credentials import ALL, DIRECTORY, Issuer, Keys, bearer, serving
from tests.api.stack import PROMPT, FakeClock, Stack, open_stack


@asynccontextmanager
async def entra() -> AsyncIterator[tuple[Stack, Issuer]]:
    with serving(Issuer(FakeClock())) as issuer:
        async with open_stack(**issuer.settings()) as stack:
            issuer.clock = stack.clock
            yield stack, issuer


async def call(stack: Stack, token: str) -> httpx.Response:
    return await stack.http.get("/v1/jobs", headers=bearer(token))


async def test_a_token_gives_directory_and_object_as_the_tenant() -> None:
    async with entra() as (stack, issuer):
        answer = await stack.http.post(
            "/v1/jobs", json={"prompt": PROMPT}, headers=bearer(issuer.token())
        )
        assert answer.status_code == 202, answer.text
        assert (await stack.state.jobs.get(answer.json()["id"])).tenant == f"{DIRECTORY}/0b1d-acme"
        app_only = issuer.token(oid=None, azp="the-app")
        job = await stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=bearer(app_only))
        assert (await stack.state.jobs.get(job.json()["id"])).tenant == f"{DIRECTORY}/the-app"
        path = f"/v1/jobs/{answer.json()['id']}"
        assert (await stack.http.get(path, headers=bearer(app_only))).status_code == 404
        assert issuer.fetches == 1, "the keys are kept"


BAD: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "someone-else"},
    "no audience": {"aud": None},
    "another issuer": {"iss": "https://login.example/x/v2.0"},
    "another directory": {"tid": "ffffffff-0000"},
    "version 1": {"ver": "1.0"},
    "no one": {"oid": None},
    "an object that is no id": {"oid": "a/b"},
    "no end": {"exp": None},
    "an end that is text": {"exp": "tomorrow"},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
async def test_a_token_with_one_thing_wrong_is_401(changes: dict[str, Any]) -> None:
    async with entra() as (stack, issuer):
        token = issuer.token(**changes)
        answer = await call(stack, token)
        assert answer.status_code == 401
        assert token not in answer.text
        assert (await call(stack, issuer.token())).status_code == 200


async def test_only_the_issuers_rsa_signature_counts() -> None:
    async with entra() as (stack, issuer):
        good = issuer.token()
        assert (await call(stack, good)).status_code == 200
        head, body, signature = good.split(".")
        forged = {
            "unsigned": issuer.unsigned(),
            "an HMAC with the public key": issuer.confused(),
            "signed by another key": issuer.token(signed_by="stranger"),
            "the signature left out": f"{head}.{body}.",
            "another body": f"{head}.{issuer.token(oid='root').split('.')[1]}.{signature}",
            "no key id": issuer.token(key_id=""),
        }
        for what, token in forged.items():
            assert (await call(stack, token)).status_code == 401, what


async def test_times_are_kept_with_a_minute_of_leeway() -> None:
    async with entra() as (stack, issuer):
        now = int(stack.clock.now().timestamp())
        for fields, expected in (
            ({"exp": now - 59}, 200),
            ({"exp": now - 60}, 401),
            ({"nbf": now + 60}, 200),
            ({"nbf": now + 61}, 401),
        ):
            assert (await call(stack, issuer.token(**fields))).status_code == expected, fields


async def test_a_new_key_is_found_once_and_a_withdrawn_one_forgotten() -> None:
    async with entra() as (stack, issuer):
        assert (await call(stack, issuer.token("first"))).status_code == 200
        stack.clock.advance(31)
        issuer.key_ids = ["first", "second"]
        assert (await call(stack, issuer.token("second"))).status_code == 200
        assert issuer.fetches == 2
        issuer.key_ids = ["second"]
        assert (await call(stack, issuer.token("first"))).status_code == 200, "still kept"
        stack.clock.advance(3600)
        async with asyncio.timeout(10):  # renewed beside the requests
            while (await call(stack, issuer.token("first"))).status_code != 401:
                await asyncio.sleep(0.01)
        assert (await call(stack, issuer.token("second"))).status_code == 200


async def test_made_up_key_ids_do_not_make_us_hammer_the_issuer() -> None:
    async with entra() as (stack, issuer):
        assert (await call(stack, issuer.token())).status_code == 200
        stack.clock.advance(31)
        for number in range(20):
            token = issuer.token(f"made-up-{number}", signed_by="stranger")
            assert (await call(stack, token)).status_code == 401
        assert issuer.fetches == 2


async def test_with_known_keys_a_provider_that_is_away_is_not_noticed() -> None:
    async with entra() as (stack, issuer):
        assert (await call(stack, issuer.token())).status_code == 200
        issuer.is_down = True
        for hours in (2, 5, 10):
            stack.clock.advance(hours * 3600)
            assert (await call(stack, issuer.token())).status_code == 200
        stack.clock.advance(7 * 3600)
        assert (await call(stack, issuer.token())).status_code == 503, "a day is enough"


async def test_without_keys_it_says_so_and_recovers() -> None:
    async with entra() as (stack, issuer):
        issuer.is_down = True
        answer = await call(stack, issuer.token())
        assert answer.status_code == 503
        assert answer.headers["x-ms-error-code"] == "IdentityProviderUnavailable"
        assert int(answer.headers["retry-after"]) >= 5
        issuer.is_down = False
        stack.clock.advance(5)
        assert (await call(stack, issuer.token())).status_code == 200


async def test_a_provider_that_hangs_delays_nobody_whose_key_is_known() -> None:
    async with entra() as (stack, issuer):
        assert (await call(stack, issuer.token())).status_code == 200
        issuer.hangs.clear()
        stack.clock.advance(2 * 3600)
        async with asyncio.timeout(2):  # less than the fetch's own patience
            for _ in range(5):
                assert (await call(stack, issuer.token())).status_code == 200
        issuer.hangs.set()


@pytest.mark.parametrize(
    ("claims", "may"),
    [
        ({"roles": ["Jobs.Read", "Other"]}, {"Jobs.Read"}),
        ({"roles": None}, set()),
        ({"roles": "Jobs.Operate"}, set()),
        ({"roles": None, "scp": "Jobs.Read Jobs.Submit openid"}, {"Jobs.Read", "Jobs.Submit"}),
        ({"roles": None, "scp": " ".join(ALL)}, {"Jobs.Read", "Jobs.Submit"}),
        ({"roles": ALL, "scp": "Jobs.Read"}, {"Jobs.Read"}),
        ({"roles": ["Jobs.Operate"], "scp": "Jobs.Operate"}, {"Jobs.Operate"}),
    ],
)
async def test_roles_come_from_the_directory_and_scopes_only_narrow(
    claims: dict[str, Any], may: set[str]
) -> None:
    async with entra() as (stack, issuer):
        caller = await stack.state.callers.identify(bearer(issuer.token(**claims)))
        assert caller.roles == may


async def test_keys_and_tokens_can_be_on_together(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.yaml")
    key = keys.add("acme")
    with serving(Issuer(FakeClock())) as issuer:
        settings = {**issuer.settings(), "auth": "api_keys,entra", "keys_file": keys.path}
        async with open_stack(**settings) as stack:
            assert (await call(stack, key)).status_code == 200
            assert (await call(stack, issuer.token())).status_code == 200
            assert (await call(stack, "neither")).status_code == 401


async def test_tokens_are_never_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async with entra() as (stack, issuer):
        token = issuer.token(aud="someone-else")
        await call(stack, token)
        issuer.is_down = True
        stack.clock.advance(4000)
        await call(stack, issuer.token())
    said = capsys.readouterr()
    assert token.split(".")[2] not in said.out + said.err
    assert token.split(".")[1] not in said.out + said.err
