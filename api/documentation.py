"""The OpenAPI document: what it says of headers, bodies and refusals, shared by the routes."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.errors import STATUS_BY_CODE
from api.headers import KEY_PATTERN
from api.problems import PROBLEM_JSON, ErrorAnswer
from darkroom.generation import GenerationRequest

_SUMMARY = "Submit text-to-image, image-to-image and inpainting jobs, and follow them."
_REFERENCES = "#/components/schemas/{model}"
_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")
_TEXT = {"type": "string"}
_OPEN = ("/livez", "/readyz", "/metrics", "/api/health")  # ask for no credential
_CREDENTIALS: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or an access token of Entra ID.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
_CALLER_REFUSALS = (401, 403, 429, 503)

SUBMIT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/GenerationRequest"}},
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/GenerationForm"}},
        },
    }
}
IDEMPOTENCY_KEY = (
    "1 to 255 printable ASCII characters, quoted or bare, good for 24 hours: the same key and body"
    " return the same job."
)


def _header(name: str, title: str, description: str, **schema: str) -> dict[str, Any]:
    """Return what the framework says of a header that it reads; for one that a route reads."""
    either = [_TEXT, {"type": "null"}]
    said = {"anyOf": either, "description": description, **schema, "title": title}
    return {
        "name": name,
        "in": "header",
        "required": False,
        "schema": said,
        "description": description,
    }


SUBMIT_HEADERS: dict[str, Any] = {
    "parameters": [
        _header("Idempotency-Key", "Idempotency-Key", IDEMPOTENCY_KEY, pattern=KEY_PATTERN),
        _header(
            "prefer",
            "Prefer",
            "`wait=n` answers when the job ends, after n (1 to 60) s at most.",
        ),
    ]
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
WAITING_STATUSES = (400, 401, 403, 409, 413, 415, 422, 429, 502, 503, 504)
"""Of the routes that answer with the pictures themselves."""
NOT_MODIFIED: dict[str, Any] = {"description": "Unchanged since the ETag that was sent."}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documented error answers of a route, each with the codes that it can carry."""
    return {status: _refusal(status) for status in (*statuses, 500)}


def shaped_refusals(shape: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the same for a route whose errors are another API's ``shape``."""
    return {status: {**_said(status), "model": shape} for status in (*statuses, 500)}


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ErrorAnswer"}
    return {
        **_said(status),
        "model": ErrorAnswer,
        "content": {
            "application/json": {"schema": schema},
            PROBLEM_JSON: {"schema": {"type": "object"}},
        },
    }


def _said(status: int) -> dict[str, Any]:
    codes = ", ".join(code for code, known in STATUS_BY_CODE.items() if known == status)
    return {
        "description": f"{HTTPStatus(status).phrase}. Codes: {codes}.",
        "headers": {"x-ms-error-code": {"description": "The error code.", "schema": _TEXT}},
    }


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what says that a route reads ``kind`` as JSON; for flat models, by no reference."""
    content = {"application/json": {"schema": kind.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


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
    schemas["GenerationForm"] = _form_of(asked)
    _link_jobs(made["paths"])
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _drop_framework_errors(operation["responses"])
            if path not in _OPEN:
                _ask_for_credential(operation)
    for name in _FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    made["components"]["securitySchemes"] = _CREDENTIALS
    return made


def _link_jobs(paths: dict[str, Any]) -> None:
    """Say what can be done with a job that was admitted: its id goes into other operations."""
    links: dict[str, Any] = {}
    for path, operations in paths.items():
        for operation in operations.values():
            if "{job_id}" in path:
                parameters = {"job_id": "$response.body#/id"}
                if "{index}" in path:
                    parameters["index"] = "$response.body#/images/0/index"
                name = operation["operationId"]
                links[name] = {"operationId": name, "parameters": parameters}
    for path in ("/v1/jobs", "/v1/jobs/{job_id}:resubmit"):
        for status, answered in paths[path]["post"]["responses"].items():
            if status in ("200", "202"):
                answered["links"] = links


def _form_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the same fields as a form has them: its pictures are files."""
    fields = dict(asked["properties"])
    for name in ("image", "mask_image"):
        said = {"description": fields[name]["description"].replace("Base64 ", "A file: ")}
        fields[name] = {"type": "string", "format": "binary", **said}
    form = {"description": "A request as a form; `tags` and `loras` are JSON text."}
    return {**asked, **form, "properties": fields, "title": "GenerationForm"}


def _ask_for_credential(operation: dict[str, Any]) -> None:
    """Say that the operation has a caller, and how callers may be refused."""
    operation["security"] = [{name: []} for name in _CREDENTIALS]
    responses = operation["responses"]
    for status in _CALLER_REFUSALS:
        if str(status) not in responses:
            refused = {**_refusal(status)}
            refused.pop("model")
            responses[str(status)] = refused
    operation["responses"] = dict(sorted(responses.items()))


def _drop_framework_errors(responses: dict[str, Any]) -> None:
    """Take out the 422 that the framework adds: our validation answers 400."""
    refused = json.dumps(responses.get("422", {}))
    if "HTTPValidationError" in refused:
        del responses["422"]
