"""The shape of every error, whoever raises it."""

import re
from pathlib import Path

import httpx
import pytest

from api.errors import STATUS_BY_CODE
from darkroom import errors as tree
from darkroom.errors import DarkroomError
from darkroom.jobstores.memory import MemoryJobStore
from tests.api.stack import PROMPT, Stack, open_stack

DOCS = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
NOBODY = "local-" + "0" * 40


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NotFound"),
        ("GET", "/v1/jobs/", 404, "NotFound"),
        ("GET", f"/v1/jobs/{NOBODY}", 404, "JobNotFound"),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404, "NotFound"),
        ("GET", "/v1/jobs/%00", 404, "JobNotFound"),
        ("POST", f"/v1/jobs/{NOBODY}:cancel", 404, "JobNotFound"),
        ("GET", f"/v1/jobs/{NOBODY}/images/0", 404, "JobNotFound"),
        ("DELETE", "/v1/jobs", 405, "MethodNotAllowed"),
        ("PUT", "/v1/models", 405, "MethodNotAllowed"),
        ("GET", "/ui/%00", 404, "NotFound"),
        ("GET", "/ui/..%2fapp.py", 404, "NotFound"),
        ("GET", "/ui/none.js", 404, "NotFound"),
    ],
)
async def test_every_error_has_one_shape(
    stack: Stack, method: str, path: str, status: int, code: str
) -> None:
    answer = await stack.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["x-ms-error-code"] == code
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert "details" not in error
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-ms-request-id"])


async def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(stack: Stack) -> None:
    answer = await stack.http.delete("/v1/models")
    assert answer.headers["allow"] == "GET"


async def test_problem_json_is_had_by_asking_for_it(stack: Stack) -> None:
    answer = await stack.http.post(
        "/v1/jobs",
        json={"prompt": PROMPT, "width": 100, "seed": -1},
        headers={"accept": "application/problem+json"},
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-ms-error-code"] == "InvalidParameter"
    problem = answer.json()
    assert problem["status"] == answer.status_code == 400
    assert problem["title"] == "Bad Request"
    assert problem["type"] == "urn:darkroom:error:InvalidParameter"
    assert problem["instance"] == "/v1/jobs"
    assert "multiple of 8" in problem["detail"]
    assert [one["target"] for one in problem["details"]] == ["width", "seed"]


async def test_a_bug_is_500_without_its_words_and_without_the_prompt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(MemoryJobStore):
        async def create(self, job, *args, **kwargs):
            raise RuntimeError(f"cannot handle {job.generation.prompt}")

    async with open_stack(jobs=Broken()) as stack:
        answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT})
        metrics = (await stack.http.get("/metrics")).text
    assert answer.status_code == 500
    assert answer.json() == {
        "error": {"code": "InternalError", "message": "something went wrong on our side"}
    }
    assert answer.headers["x-ms-request-id"]
    said = capsys.readouterr()
    assert "request_crashed" in said.out + said.err
    assert "lighthouse" not in said.out + said.err + answer.text
    assert 'route="/v1/jobs",status="500"' in metrics


async def test_a_vanished_caller_is_no_crash(stack: Stack) -> None:
    async def leaves() -> dict[str, object]:
        return {"type": "http.disconnect"}

    sent: list[object] = []

    async def send(message: object) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/jobs",
        "raw_path": b"/v1/jobs",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("darkroom.localhost", 80),
        "headers": [(b"host", b"darkroom.localhost"), (b"content-type", b"application/json")],
    }
    transport = stack.http._transport
    assert isinstance(transport, httpx.ASGITransport)
    await transport.app(scope, leaves, send)
    assert sent == []


@pytest.mark.parametrize("host", ["[", "a b", "[::1", ""])
async def test_a_host_header_that_is_none_gets_no_500(stack: Stack, host: str) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers={"host": host})
    assert answer.status_code < 500


@pytest.mark.parametrize("client_id", ["my-request.1", "9d1c6a2e-0000-4000-8000-000000000000"])
async def test_the_callers_request_id_comes_back(stack: Stack, client_id: str) -> None:
    answer = await stack.http.get("/livez", headers={"x-ms-client-request-id": client_id})
    assert answer.headers["x-ms-client-request-id"] == client_id
    assert answer.headers["x-ms-request-id"] != client_id


@pytest.mark.parametrize("client_id", ["a b", "x" * 129, "<script>", ""])
async def test_a_request_id_that_could_do_harm_is_dropped(stack: Stack, client_id: str) -> None:
    answer = await stack.http.get("/livez", headers={"x-ms-client-request-id": client_id})
    assert "x-ms-client-request-id" not in answer.headers


def _codes(root: type[DarkroomError]) -> set[str]:
    return {root.code}.union(*(_codes(child) for child in root.__subclasses__()))


def test_every_refusal_of_the_contract_has_a_status() -> None:
    for family in (tree.InvalidInput, tree.NotFound, tree.Conflict):
        ours = {code for code in _codes(family) if code != "StaleAttempt"}  # workers' alone
        assert ours <= STATUS_BY_CODE.keys()


def test_every_code_is_documented() -> None:
    text = DOCS.read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text, re.MULTILINE))
    assert rows == {code: str(status) for code, status in STATUS_BY_CODE.items()}
    for code in _codes(DarkroomError) - {"Terminal", "Retryable"}:  # abstract
        assert f"`{code}`" in text, code
