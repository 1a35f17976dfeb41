"""Every error as an answer: the Azure error shape, or RFC 9457 when the caller accepts it.

Values that a caller sent are never repeated: messages name the field and the limit.
"""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, compile_path

from api.error_shapes import SHAPES
from api.errors import (
    UNAVAILABLE_RETRY_SECONDS,
    Detail,
    Forbidden,
    InvalidJson,
    InvalidParameters,
    JobFailed,
    JobTimedOut,
    LimitReached,
    MethodNotAllowed,
    RouteNotFound,
    Unauthenticated,
    UnsupportedMediaType,
    status_of,
)
from darkroom.errors import DarkroomError, InvalidInput

PROBLEM_JSON = "application/problem+json"
_PLAIN_NAME = re.compile(r"^[A-Za-z0-9_.\-]{1,64}$")
_OUR_FAULT = {  # what our own parts said is for the log, not for callers
    500: "something went wrong on our side",
    503: "the service cannot reach one of its own parts; try again later",
}
_OPEN_MAPS = frozenset({"tags"})  # their keys are the caller's text
_PREFIXES = ("Value error, ", "Assertion failed, ")


class ErrorDetail(BaseModel):
    """One thing that is wrong."""

    model_config = ConfigDict(extra="forbid")

    code: str
    message: str
    target: str | None = Field(None, description="The request field, header or parameter at fault.")


class ErrorBody(ErrorDetail):
    """What is wrong; with several faults, the first, and all of them in ``details``."""

    details: list[ErrorDetail] | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer with a status of 400 or more."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorBody


def details_of(errors: Sequence[Any], fields: Mapping[str, str]) -> list[Detail]:
    """Turn pydantic's errors into ours, without the values.

    ``fields`` maps each known field to its description, which states its limits.
    """
    return [_detail(error, fields) for error in errors]


def _detail(error: Mapping[str, Any], fields: Mapping[str, str]) -> Detail:
    where = [part for part in error["loc"] if part not in ("body", "query", "path", "header")]
    target = _target(where) or "body"
    if error["type"] == "extra_forbidden":
        known = ", ".join(fields)
        return Detail("InvalidParameter", f"{target}: unknown field; known are: {known}", target)
    if error["type"] == "missing":
        return Detail("InvalidParameter", f"{target}: required but not given", target)
    message = str(error["msg"])
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    limits = fields.get(str(where[0]), "") if where else ""
    said = f"{target}: {message[:1].lower()}{message[1:]}"
    return Detail("InvalidParameter", f"{said}. {limits}" if limits else said, target)


def _target(where: Sequence[Any]) -> str:
    parts: list[str] = []
    for part in where:
        if not isinstance(part, int) and not _PLAIN_NAME.match(str(part)):
            break
        parts.append(str(part))
        if part in _OPEN_MAPS:
            break
    return ".".join(parts)


def answer(request: Request, error: DarkroomError) -> JSONResponse:
    """Return the answer to ``error``: status, code header and the body of the accepted type."""
    status = status_of(error)
    internal = status == HTTPStatus.INTERNAL_SERVER_ERROR
    is_limit = isinstance(error, LimitReached)
    body = ErrorBody(
        code="InternalError" if internal else error.code,
        message=error.message if is_limit else _OUR_FAULT.get(status, error.message),
        target=None if internal else error.target,
        details=_listed(error),
    )
    headers = {"x-ms-error-code": body.code}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(UNAVAILABLE_RETRY_SECONDS)
    if isinstance(error, LimitReached | Unauthenticated | Forbidden | JobFailed | JobTimedOut):
        headers |= error.headers
    if shape := SHAPES.get(request.url.path):
        said = shape(status, body.code, body.message, body.target)
        return JSONResponse(said, status, headers)
    if PROBLEM_JSON in request.headers.get("accept", ""):
        content = {
            "type": f"urn:darkroom:error:{body.code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": body.message,
            "instance": request.url.path,
            **body.model_dump(exclude={"message"}, exclude_none=True),
        }
        return JSONResponse(content, status, headers, media_type=PROBLEM_JSON)
    return JSONResponse(ErrorAnswer(error=body).model_dump(exclude_none=True), status, headers)


def _listed(error: DarkroomError) -> list[ErrorDetail] | None:
    if not isinstance(error, InvalidParameters) or len(error.details) < 2:
        return None
    return [ErrorDetail(code=d.code, message=d.message, target=d.target) for d in error.details]


def _framework_error(error: HTTPException) -> DarkroomError:
    """Translate what the framework itself raises."""
    known: dict[int, DarkroomError] = {
        404: RouteNotFound("there is nothing at this path; see /openapi.json"),
        405: MethodNotAllowed("this path does not take this method; see the Allow header"),
        415: UnsupportedMediaType("the body must be application/json", target="Content-Type"),
    }
    fallback = InvalidInput if error.status_code < 500 else DarkroomError
    return known.get(error.status_code, fallback(HTTPStatus(error.status_code).phrase))


def allowed_methods(routes: Sequence[BaseRoute], path: str) -> str:
    """Return ``Allow`` for a path: the methods of every route that has it.

    The framework names those of the first alone; and to it ``/v1/jobs/1:cancel`` is also a job.
    """
    having = [
        route
        for route in iter_route_contexts(routes)
        if route.path and route.methods and compile_path(route.path)[0].match(path)
    ]
    verb = path.rpartition("/")[2].partition(":")[2]
    exact = [route for route in having if verb and str(route.path).endswith(f":{verb}")]
    methods = {method for route in exact or having for method in route.methods or ()}
    return ", ".join(sorted(methods - {"HEAD"}))


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` in our shape."""

    async def on_ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, DarkroomError)
        return answer(request, error)

    async def on_framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        response = answer(request, _framework_error(error))
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["allow"] = allowed_methods(app.routes, request.url.path)
        return response

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        if any(one["type"] == "json_invalid" for one in error.errors()):
            return answer(request, InvalidJson("the body is not JSON", target="body"))
        return answer(request, InvalidParameters(details_of(error.errors(), {})))

    app.add_exception_handler(DarkroomError, on_ours)
    app.add_exception_handler(HTTPException, on_framework)
    app.add_exception_handler(RequestValidationError, on_validation)
