"""Who may call, with API keys or without credentials."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from api.auth.api_keys import read_keys
from api.settings import ApiSettings
from cli.keys import print_new
from darkroom.errors import SettingsError
from darkroom.settings import load
from tests.api.credentials import ALL, Keys, bearer
from tests.api.stack import PROMPT, Stack, open_stack


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.yaml")


@pytest.fixture
async def guarded(keys: Keys) -> AsyncIterator[Stack]:
    async with open_stack(auth="api_keys", keys_file=keys.path) as opened:
        yield opened


async def status(stack: Stack, headers: dict[str, str]) -> int:
    return (await stack.http.get("/v1/jobs", headers=headers)).status_code


def look_again(stack: Stack) -> None:
    stack.clock.advance(1)


async def test_a_key_lets_its_tenant_in_under_either_header(guarded: Stack, keys: Keys) -> None:
    key = keys.add("acme")
    look_again(guarded)
    assert await status(guarded, bearer(key)) == 200
    assert await status(guarded, {"x-api-key": key}) == 200
    job = (await guarded.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=bearer(key))).json()
    assert (await guarded.state.jobs.get(job["id"])).tenant == "acme"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic YTpi"},
        {"authorization": "Bearer dk_" + "A" * 43},
        {"x-api-key": "dk_" + "A" * 43},
        {"x-api-key": ""},
        {"x-api-key": "dk_" + "A" * 20_000},
        {"authorization": "Bearer a.b.c"},
        {"authorization": "Bearer dk_x", "x-api-key": "dk_y"},
    ],
)
async def test_anything_else_is_401_with_the_challenge(
    guarded: Stack, headers: dict[str, str]
) -> None:
    answer = await guarded.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["x-ms-error-code"] == "Unauthenticated"
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="darkroom"')
    assert ("invalid_token" in challenge) == bool(headers)
    for value in headers.values():
        assert value.split()[-1:] == [] or value.split()[-1] not in answer.text
    assert await guarded.messages() == []


async def test_a_tenant_may_have_several_keys_and_sees_the_same_jobs(
    guarded: Stack, keys: Keys
) -> None:
    first, second, other = keys.add("acme"), keys.add("acme"), keys.add("umbrella")
    look_again(guarded)
    job = (
        await guarded.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=bearer(first))
    ).json()
    path = f"/v1/jobs/{job['id']}"
    assert (await guarded.http.get(path, headers=bearer(second))).status_code == 200
    assert (await guarded.http.get(path, headers=bearer(other))).status_code == 404


async def test_keys_rotate_without_a_restart(guarded: Stack, keys: Keys) -> None:
    old = keys.add("acme")
    look_again(guarded)
    assert await status(guarded, bearer(old)) == 200
    new = keys.add("acme")
    look_again(guarded)
    assert await status(guarded, bearer(old)) == await status(guarded, bearer(new)) == 200
    keys.entries[0]["revoked"] = True
    keys.write()
    look_again(guarded)
    assert await status(guarded, bearer(old)) == 401
    assert await status(guarded, bearer(new)) == 200
    del keys.entries[0]
    keys.write()
    look_again(guarded)
    assert await status(guarded, bearer(old)) == 401


async def test_a_key_ends_at_its_time(guarded: Stack, keys: Keys) -> None:
    ends = guarded.clock.now() + timedelta(seconds=60)
    key = keys.add("acme", expires_at=ends.isoformat())
    look_again(guarded)
    guarded.clock.advance(58.9)
    assert await status(guarded, bearer(key)) == 200
    guarded.clock.advance(0.1)
    assert await status(guarded, bearer(key)) == 401


async def test_a_file_that_breaks_locks_nobody_out(guarded: Stack, keys: Keys) -> None:
    key = keys.add("acme")
    look_again(guarded)
    assert await status(guarded, bearer(key)) == 200
    for text in ("keys: [", "keys: 5", "keys:\n- tenant: acme\n"):
        keys.path.write_text(text)
        look_again(guarded)
        assert await status(guarded, bearer(key)) == 200
    keys.path.unlink()
    look_again(guarded)
    assert await status(guarded, bearer(key)) == 200


async def test_a_missing_role_is_named(guarded: Stack, keys: Keys) -> None:
    reader = keys.add("acme", roles=["Jobs.Read"])
    look_again(guarded)
    answer = await guarded.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=bearer(reader))
    assert answer.status_code == 403
    assert answer.json()["error"]["target"] == "Jobs.Submit"
    assert 'scope="Jobs.Submit"' in answer.headers["www-authenticate"]
    assert await status(guarded, bearer(reader)) == 200


async def test_what_is_open_stays_open(guarded: Stack) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/", "/docs", "/ui/page.js"):
        assert (await guarded.http.get(path)).status_code == 200, path


async def test_metrics_may_be_kept_for_operators(keys: Keys) -> None:
    operator, other = keys.add("ops", roles=ALL), keys.add("acme")
    settings = {"auth": "api_keys", "keys_file": keys.path, "metrics_need_operator": True}
    async with open_stack(**settings) as stack:
        assert (await stack.http.get("/metrics")).status_code == 401
        assert (await stack.http.get("/metrics", headers=bearer(other))).status_code == 403
        assert (await stack.http.get("/metrics", headers=bearer(operator))).status_code == 200


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("keys: [", "not YAML"),
        ("[]", "file"),
        ("keys:\n- {name: a, tenant: b, sha256: dk_secret}", "keys.0.sha256"),
        ("keys:\n- {name: a, tenant: b/c, sha256: " + "a" * 64 + "}", "keys.0.tenant"),
        (
            "keys:\n- {name: a, tenant: b, sha256: " + "a" * 64 + ", roles: [Jobs.Everything]}",
            "keys.0.roles.0",
        ),
        (
            "keys:\n"
            + "".join(f"- {{name: {name}, tenant: b, sha256: {'a' * 64}}}\n" for name in "cd"),
            "stands twice",
        ),
    ],
)
def test_a_file_at_fault_is_refused_at_the_start_without_repeating_it(
    tmp_path: Path, text: str, fault: str
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=fault) as refused:
        read_keys(path)
    assert "dk_secret" not in refused.value.message
    with pytest.raises(SettingsError, match="No such file"):
        read_keys(tmp_path / "none.yaml")


def test_a_new_key_fits_the_file_and_is_not_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_new("acme", roles=["Jobs.Read"], name="farm", days=30)
    key, _, rest = capsys.readouterr().out.partition("\n")
    assert key.startswith("dk_")
    assert key not in rest
    path = tmp_path / "keys.yaml"
    path.write_text(rest[rest.index("keys:") :])
    (entry,) = read_keys(path).values()
    assert (entry.name, entry.tenant, entry.roles) == ("farm", "acme", ("Jobs.Read",))
    assert entry.expires_at is not None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"AUTH": "anybody"}, "DARKROOM_API_AUTH"),
        ({"AUTH": "api_keys"}, "DARKROOM_API_KEYS_FILE"),
        ({"AUTH": "entra"}, "DARKROOM_API_ENTRA_ISSUERS"),
        (
            {"AUTH": "entra", "ENTRA_ISSUERS": "http://login.example", "ENTRA_AUDIENCES": "a"},
            "https",
        ),
    ],
)
def test_settings_without_what_they_need_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"DARKROOM_API_{name}", value)
    with pytest.raises(SettingsError, match=named):
        load(ApiSettings)


def test_with_credentials_it_may_listen_anywhere(
    monkeypatch: pytest.MonkeyPatch, keys: Keys
) -> None:
    monkeypatch.setenv("DARKROOM_API_HOST", "0.0.0.0")
    monkeypatch.setenv("DARKROOM_API_AUTH", "api_keys")
    monkeypatch.setenv("DARKROOM_API_KEYS_FILE", str(keys.path))
    assert not load(ApiSettings).is_local_only


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("darkroom.localhost", 200),
        ("studio.example", 200),
        ("attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.attacker.example:80", 421),
        ("10.0.0.1", 421),
        ("", 421),
    ],
)
async def test_without_credentials_only_names_of_this_machine_are_answered(
    host: str, expected: int
) -> None:
    async with open_stack(public_url="https://studio.example/pictures") as stack:
        answer = await stack.http.get("/v1/jobs", headers={"host": host})
    assert answer.status_code == expected
    if expected == 421:
        assert answer.json()["error"]["code"] == "HostNotAllowed"
        assert answer.headers["x-ms-request-id"]


async def test_where_callers_are_known_every_name_is_answered(guarded: Stack, keys: Keys) -> None:
    key = keys.add("acme")
    look_again(guarded)
    assert await status(guarded, {**bearer(key), "host": "studio.example"}) == 200
