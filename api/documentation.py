"""The OpenAPI document: what it says of headers, bodies and refusals, shared by the routes."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import STATUS_BY_CODE
from api.problems import PROBLEM_JSON, ErrorAnswer
from darkroom.generation import GenerationRequest

_SUMMARY = "Submit text-to-image, image-to-image and inpainting jobs, and follow them."
_REFERENCES = "#/components/schemas/{model}"
_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")
_TEXT = {"type": "string"}

SUBMIT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/GenerationRequest"}}
        },
    }
}
JOB_HEADERS: dict[str, Any] = {
    "ETag": {"description": "Version of the record, for If-None-Match.", "schema": _TEXT},
    "Operation-Location": {
        "description": "Absolute address of the job (on a submit).",
        "schema": {"type": "string", "format": "uri"},
    },
    "Retry-After": {
        "description": "Seconds until the next look; until the job has ended.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Preference-Applied": {"description": "What of Prefer was honoured.", "schema": _TEXT},
    "x-ms-request-id": {"description": "Id of this request, for support.", "schema": _TEXT},
}
NOT_MODIFIED: dict[str, Any] = {"description": "Unchanged since the ETag that was sent."}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documented error answers of a route, each with the codes that it can carry."""
    return {status: _refusal(status) for status in (*statuses, 500)}


def _refusal(status: int) -> dict[str, Any]:
    codes = ", ".join(code for code, known in STATUS_BY_CODE.items() if known == status)
    schema = {"$ref": "#/components/schemas/ErrorAnswer"}
    return {
        "description": f"{HTTPStatus(status).phrase}. Codes: {codes}.",
        "model": ErrorAnswer,
        "headers": {"x-ms-error-code": {"description": "The error code.", "schema": _TEXT}},
        "content": {
            "application/json": {"schema": schema},
            PROBLEM_JSON: {"schema": {"type": "object"}},
        },
    }


def document(app: FastAPI) -> None:
    """Make ``app`` answer /openapi.json with the exact document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _generate(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to replace it


def _generate(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, summary=_SUMMARY, routes=app.routes)
    schemas = made["components"]["schemas"]
    asked = GenerationRequest.model_json_schema(ref_template=_REFERENCES)
    schemas.update(asked.pop("$defs", {}))
    schemas["GenerationRequest"] = asked
    for operations in made["paths"].values():
        for operation in operations.values():
            _drop_framework_errors(operation["responses"])
    for name in _FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    return made


def _drop_framework_errors(responses: dict[str, Any]) -> None:
    """Take out the 422 that the framework adds: our validation answers 400."""
    refused = json.dumps(responses.get("422", {}))
    if "HTTPValidationError" in refused:
        del responses["422"]
