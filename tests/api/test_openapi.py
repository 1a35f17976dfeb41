"""openapi.json says what the API does, and is current."""

import json
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from api.errors import STATUS_BY_CODE
from api.openapi import FILE, render
from api.representations import JobBody, JobPage, ModelList
from darkroom.generation import GenerationRequest
from tests.api.stack import Stack

DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())


def test_the_committed_document_is_current() -> None:
    assert FILE.read_text() == render(), "run python -m api.openapi --write"


async def test_the_served_document_is_the_committed_one(stack: Stack) -> None:
    assert (await stack.http.get("/openapi.json")).json() == DOCUMENT


def test_every_request_field_is_described_with_its_limits() -> None:
    asked = DOCUMENT["components"]["schemas"]["GenerationRequest"]
    assert asked["properties"].keys() == GenerationRequest.model_fields.keys()
    assert asked["additionalProperties"] is False
    assert all(field.get("description") for field in asked["properties"].values())
    assert asked["required"] == ["prompt"]


def test_every_reference_leads_somewhere() -> None:
    text = FILE.read_text()
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.partition('"')[0] in DOCUMENT["components"]["schemas"]


def test_every_operation_documents_its_refusals() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            statuses = operation["responses"].keys()
            assert operation["summary"], (method, path)
            if path.startswith("/v1/"):
                assert "500" in statuses, (method, path)
            if "{job_id}" in path:
                assert "404" in statuses, (method, path)
            refused = {int(status) for status in statuses if int(status) >= 400}
            assert refused <= set(STATUS_BY_CODE.values()), (method, path)
    assert "HTTPValidationError" not in FILE.read_text()


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/jobs/{id}", JobBody), ("/v1/jobs", JobPage), ("/v1/models", ModelList)],
)
async def test_answers_are_what_the_models_say(stack: Stack, path: str, kind: Any) -> None:
    job = await stack.submit()
    await stack.begin(job["id"])
    await stack.finish(job["id"])
    answer: httpx.Response = await stack.http.get(path.format(id=job["id"]))
    TypeAdapter(kind).validate_json(answer.content)
