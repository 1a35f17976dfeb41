"""The calls of the HTTP API as values: what is sent, and how an answer is read.

Both clients are made of these; they differ in how they wait.
"""

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from darkroom.client.problems import DarkroomClientError, ServerUnreachable
from darkroom.client.views import ModelView

V = TypeVar("V", bound=BaseModel)

MAX_PAGE_SIZE = 100
RECONNECT_SECONDS = 0.5  # between the end of a stream and its resumption
POLL_SECONDS = 20  # one long-poll; the API answers earlier when the job ends


@dataclass(frozen=True)
class Call:
    """One request. Every one of them may be sent again without a second effect."""

    method: str
    url: str
    params: Mapping[str, str | int] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None


class ModelList(BaseModel):
    """The answer of ``GET /v1/models``."""

    value: tuple[ModelView, ...]


def submit(
    prompt: str,
    image: bytes | None,
    mask_image: bytes | None,
    idempotency_key: str | None,
    parameters: Mapping[str, Any],
) -> Call:
    """Return the submit; without a key it gets one, so that sending it twice makes one job."""
    body = {name: value for name, value in parameters.items() if value is not None}
    for name, picture in (("image", image), ("mask_image", mask_image)):
        if picture is not None:
            body[name] = base64.b64encode(picture).decode()
    key = idempotency_key or uuid.uuid4().hex
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return Call(
        "POST",
        "/v1/jobs",
        headers={"Idempotency-Key": f'"{quoted}"'},
        json={"prompt": prompt, **body},
    )


def get(job_id: str, wait_seconds: int = 0) -> Call:
    """Return the read of a job, held up to ``wait_seconds`` until it ends."""
    return Call("GET", path(job_id), params={"wait": wait_seconds} if wait_seconds else None)


def cancel(job_id: str) -> Call:
    """Return the cancel of a job."""
    return Call("POST", f"{path(job_id)}:cancel")


def image(job_id: str, index: int) -> Call:
    """Return the read of a picture."""
    return Call("GET", f"{path(job_id)}/images/{index}")


def preview(job_id: str) -> Call:
    """Return the read of a running job's newest preview."""
    return Call("GET", f"{path(job_id)}/preview")


def models() -> Call:
    """Return the read of the models."""
    return Call("GET", "/v1/models")


def events(job_id: str, last_event_id: str | None) -> Call:
    """Return the stream of a job's events, after ``last_event_id``."""
    headers = {"Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    return Call("GET", f"{path(job_id)}/events", headers=headers)


def first_page(
    limit: int | None,
    status: str | None,
    model: str | None,
    created_after: datetime | None,
    tag: tuple[str, str] | None,
) -> Call:
    """Return the first page of a list."""
    filters = {
        "limit": None if limit is None else min(limit, MAX_PAGE_SIZE),
        "status": status,
        "model": model,
        "created_after": created_after.isoformat() if created_after else None,
        "tag": ":".join(tag) if tag else None,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    return Call("GET", "/v1/jobs", params=given or None)


def next_page(link: str) -> Call:
    """Return a further page: the link as it is, with the parameters that it carries."""
    return Call("GET", link)


def check_is_stream(answer: httpx.Response) -> None:
    """Raise `DarkroomClientError` unless the answer is a stream of events."""
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        said = "the server answered a request for events with something else"
        raise DarkroomClientError("UnexpectedAnswer", said, status=answer.status_code)


def path(job_id: str) -> str:
    """Return the path of a job; no id can leave it."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


def refused(
    answer: httpx.Response | None, base_url: str, failure: Exception | None
) -> DarkroomClientError:
    """Return the error to raise once no retry is left; ``answer`` is None where none came."""
    if answer is None:
        return ServerUnreachable(base_url, type(failure).__name__)
    return _problem(answer)


def _problem(answer: httpx.Response) -> DarkroomClientError:
    try:
        error = answer.json()["error"]
        return DarkroomClientError(
            str(error["code"]),
            str(error["message"]),
            target=error.get("target"),
            status=answer.status_code,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return DarkroomClientError(
            "UnexpectedAnswer",
            f"the server answered {answer.status_code} without an error that can be read",
            status=answer.status_code,
        )


def read(kind: type[V], answer: httpx.Response) -> V:
    """Return the answer's body. Raises `DarkroomClientError` for one that is not ours."""
    return read_text(kind, answer.content, answer.status_code)


def read_text(kind: type[V], text: str | bytes, status: int) -> V:
    """Return JSON text as a value. Raises `DarkroomClientError`."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        named = ".".join(str(part) for part in error.errors()[0]["loc"]) or "body"
        raise DarkroomClientError(
            "UnexpectedAnswer",
            f"the answer's field {named} cannot be read",
            target=named,
            status=status,
        ) from error
