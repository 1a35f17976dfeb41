"""The calls of the HTTP API, one method each; synchronous."""

import base64
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from darkroom.client.operating import OperatingCalls, V
from darkroom.client.problems import DarkroomClientError, ServerUnreachable
from darkroom.client.views import JobPage, JobView, ModelView

MAX_PAGE_SIZE = 100
POLL_SECONDS = 20  # one long-poll; the API answers earlier when the job ends


class Client(OperatingCalls):
    """A connection to one Darkroom API.

    Every method raises `DarkroomClientError` when the API refuses, and its subclass
    `ServerUnreachable` when nothing answers within ``timeout_seconds``.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, *, timeout_seconds: float = 30.0
    ) -> None:
        self._base_url = base_url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            base_url=self._base_url,
            headers=headers,
            timeout=timeout_seconds,
            follow_redirects=True,  # a picture may be a 307 to a short-lived link
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def submit(
        self,
        prompt: str,
        *,
        image: bytes | None = None,
        mask_image: bytes | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> JobView:
        """Ask for pictures and return the accepted job.

        ``parameters`` are further fields of the request (``model``, ``width``, ``seed``, ...);
        those that are None are left out. ``image`` and ``mask_image`` are picture files.
        """
        body = {name: value for name, value in parameters.items() if value is not None}
        for name, picture in (("image", image), ("mask_image", mask_image)):
            if picture is not None:
                body[name] = base64.b64encode(picture).decode()
        headers = {"Idempotency-Key": f'"{idempotency_key}"'} if idempotency_key else {}
        answer = self._send("POST", "/v1/jobs", json={"prompt": prompt, **body}, headers=headers)
        return _read(JobView, answer)

    def get(self, job_id: str, *, wait_seconds: int = 0) -> JobView:
        """Return the job; with ``wait_seconds`` (to 60), once it ends or the time is up."""
        params = {"wait": wait_seconds} if wait_seconds else {}
        return _read(JobView, self._send("GET", _path(job_id), params=params))

    def wait(self, job_id: str, *, timeout_seconds: float | None = None) -> JobView:
        """Return the job once it has ended, or as it is after ``timeout_seconds``."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            job = self.get(job_id, wait_seconds=max(0, min(POLL_SECONDS, int(left))))
            if job.status.is_terminal or left <= 0:
                return job

    def list(
        self,
        *,
        limit: int | None = None,
        status: str | None = None,
        model: str | None = None,
        created_after: datetime | None = None,
        tag: tuple[str, str] | None = None,
    ) -> Iterator[JobView]:
        """Yield jobs, newest first, page by page; at most ``limit`` of them.

        The others are filters; ``tag`` is a name and a value.
        """
        filters = {
            "limit": None if limit is None else min(limit, MAX_PAGE_SIZE),
            "status": status,
            "model": model,
            "created_after": created_after.isoformat() if created_after else None,
            "tag": ":".join(tag) if tag else None,
        }
        params = {name: value for name, value in filters.items() if value is not None}
        page = _read(JobPage, self._send("GET", "/v1/jobs", params=params))
        left = limit
        while True:
            jobs = page.value if left is None else page.value[:left]
            yield from jobs
            left = None if left is None else left - len(jobs)
            if page.next_link is None or left == 0:
                return
            page = _read(JobPage, self._send("GET", page.next_link))

    def cancel(self, job_id: str) -> JobView:
        """Ask for the job to stop; a job that has ended stays as it is."""
        return _read(JobView, self._send("POST", f"{_path(job_id)}:cancel"))

    def image(self, job_id: str, index: int = 0) -> bytes:
        """Return picture ``index`` (from 0) of a job as a PNG file."""
        return self._send("GET", f"{_path(job_id)}/images/{index}").content

    def models(self) -> tuple[ModelView, ...]:
        """Return the models that may be asked for."""
        return _read(_ModelList, self._send("GET", "/v1/models")).value

    def _ask(
        self, kind: type[V], method: str, url: str, params: Mapping[str, str] | None = None
    ) -> V:
        return _read(kind, self._send(method, url, params=params))

    def _tell(self, method: str, url: str) -> None:
        self._send(method, url)

    def _send(
        self,
        method: str,
        url: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            # An empty mapping of parameters would strip those of a next link.
            answer = self._http.request(
                method, url, json=json, params=params or None, headers=headers
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServerUnreachable(self._base_url, type(error).__name__) from error
        if answer.is_error:
            raise _problem(answer)
        return answer


class _ModelList(BaseModel):
    value: tuple[ModelView, ...]


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


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


def _read(kind: type[V], answer: httpx.Response) -> V:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"]) or "body"
        raise DarkroomClientError(
            "UnexpectedAnswer",
            f"the answer's field {field} cannot be read",
            target=field,
            status=answer.status_code,
        ) from error
