"""Request bodies: read up to the limit, parsed strictly, checked by a model.

JSON is strict (RFC 8259: no NaN, no name twice). A form (RFC 7578) is the same request with text
for values: see `api.forms`.
"""

import asyncio
import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from api.errors import InvalidJson, InvalidParameters, RequestTooLarge, UnsupportedMediaType
from api.forms import FORM_TYPE, form_values
from api.problems import details_of
from api.state import ApiState
from darkroom.generation import GenerationRequest

B = TypeVar("B", bound=BaseModel)

JSON_TYPE = "application/json"
IN_THREAD_BYTES = 256 * 1024  # a longer body is parsed off the event loop


async def read_generation(request: Request, state: ApiState) -> GenerationRequest:
    """Read and check the body of a submit: JSON, or a form whose pictures are files.

    Raises `UnsupportedMediaType`, `RequestTooLarge` (as soon as too much has come, whatever the
    headers said), `InvalidJson`, `InvalidForm` and `InvalidParameters`.
    """
    given = request.headers.get("content-type", "")
    if _media_type(given) not in (JSON_TYPE, FORM_TYPE):
        raise UnsupportedMediaType(
            f"the body must be {JSON_TYPE} or {FORM_TYPE}", target="Content-Type"
        )
    body = await _read_body(request, state.settings.max_body_bytes)
    if _media_type(given) == FORM_TYPE:
        return await asyncio.to_thread(_parse_form, body, given)
    return await _parsed(body, GenerationRequest)


async def read_json(request: Request, state: ApiState, kind: type[B]) -> B:
    """Read and check a body that can only be JSON. Raises like `read_generation`."""
    if _media_type(request.headers.get("content-type", "")) != JSON_TYPE:
        raise UnsupportedMediaType(f"the body must be {JSON_TYPE}", target="Content-Type")
    return await _parsed(await _read_body(request, state.settings.max_body_bytes), kind)


def checked(kind: type[B], values: dict[str, Any]) -> B:
    """Check values that are no JSON text. Raises `InvalidParameters`, which names each field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _invalid(error, kind) from None


def _parse_form(body: bytes, content_type: str) -> GenerationRequest:
    return checked(GenerationRequest, form_values(body, content_type))


async def _parsed(body: bytes, kind: type[B]) -> B:
    if len(body) > IN_THREAD_BYTES:
        return await asyncio.to_thread(_parse_json, body, kind)
    return _parse_json(body, kind)


def _media_type(content_type: str) -> str:
    return content_type.split(";", maxsplit=1)[0].strip().lower()


async def _read_body(request: Request, max_bytes: int) -> bytes:
    refusal = RequestTooLarge(f"the body must have at most {max_bytes:,} bytes", target="body")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise refusal
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise refusal
    return bytes(body)


def _parse_json(body: bytes, kind: type[B]) -> B:
    try:
        json.loads(body.decode(), object_pairs_hook=_no_name_twice, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        known = str(error) if isinstance(error, _NotJson) else "not a JSON document in UTF-8"
        raise InvalidJson(f"the body is not valid JSON: {known}", target="body") from None
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if any(one["type"] == "json_invalid" for one in error.errors(include_url=False)):
            reason = "a string is not valid Unicode, or a number is out of range"
            raise InvalidJson(f"the body is not valid JSON: {reason}", target="body") from None
        raise _invalid(error, kind) from None


def _invalid(error: ValidationError, kind: type[BaseModel]) -> InvalidParameters:
    fields = {name: field.description or "" for name, field in kind.model_fields.items()}
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return InvalidParameters(details_of(found, fields))


class _NotJson(ValueError):
    """A message that holds nothing of the body."""


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotJson("a name stands twice in one object")
    return found


def _no_constants(_: str) -> Any:
    raise _NotJson("NaN and Infinity are not JSON numbers")
