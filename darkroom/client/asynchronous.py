"""The client for asyncio; the same calls as `darkroom.client.http`."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from darkroom.client import calls
from darkroom.client.calls import POLL_SECONDS, RECONNECT_SECONDS, Call, ModelList, refused
from darkroom.client.events import EventParser, ServerEvent
from darkroom.client.operating import AsyncOperatingCalls
from darkroom.client.retries import Retries
from darkroom.client.views import JobPage, JobView, ModelView


class AsyncClient(AsyncOperatingCalls):
    """A connection to one Darkroom API.

    For one event loop. Every method raises `DarkroomClientError` when the API refuses, and its
    subclass `ServerUnreachable` when nothing answers within ``timeout_seconds``; both only after
    ``retries``, which never make a second job of one submit.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        retries: Retries | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._retries = retries or Retries()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(
            base_url=self._base_url,
            headers=headers,
            timeout=timeout_seconds,
            follow_redirects=True,  # a picture may be a 307 to a short-lived link
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the connections."""
        await self._http.aclose()

    async def submit(
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
        call = calls.submit(prompt, image, mask_image, idempotency_key, parameters)
        return calls.read(JobView, await self._send(call))

    async def get(self, job_id: str, *, wait_seconds: int = 0) -> JobView:
        """Return the job; with ``wait_seconds`` (to 60), once it ends or the time is up."""
        return calls.read(JobView, await self._send(calls.get(job_id, wait_seconds)))

    async def wait(self, job_id: str, *, timeout_seconds: float | None = None) -> JobView:
        """Return the job once it has ended, or as it is after ``timeout_seconds``."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            job = await self.get(job_id, wait_seconds=max(0, min(POLL_SECONDS, int(left))))
            if job.status.is_terminal or left <= 0:
                return job

    async def stream(self, job_id: str) -> AsyncIterator[JobView]:
        """Yield the job as it is and at each change, until it has ended.

        A connection that breaks is taken up again after the last event.
        """
        last_id: str | None = None
        while True:
            async with aclosing(self._events(calls.events(job_id, last_id))) as events:
                async for event in events:
                    last_id = event.id
                    job = calls.read_text(JobView, event.data, 200)
                    yield job
                    if job.status.is_terminal:
                        return
            await asyncio.sleep(RECONNECT_SECONDS)

    async def list(
        self,
        *,
        limit: int | None = None,
        status: str | None = None,
        model: str | None = None,
        created_after: datetime | None = None,
        tag: tuple[str, str] | None = None,
    ) -> AsyncIterator[JobView]:
        """Yield jobs, newest first, page by page; at most ``limit`` of them.

        The others are filters; ``tag`` is a name and a value.
        """
        call = calls.first_page(limit, status, model, created_after, tag)
        left = limit
        while True:
            page = calls.read(JobPage, await self._send(call))
            jobs = page.value if left is None else page.value[:left]
            for job in jobs:
                yield job
            left = None if left is None else left - len(jobs)
            if page.next_link is None or left == 0:
                return
            call = calls.next_page(page.next_link)

    async def cancel(self, job_id: str) -> JobView:
        """Ask for the job to stop; a job that has ended stays as it is."""
        return calls.read(JobView, await self._send(calls.cancel(job_id)))

    async def image(self, job_id: str, index: int = 0) -> bytes:
        """Return picture ``index`` (from 0) of a job as a PNG file."""
        return (await self._send(calls.image(job_id, index))).content

    async def preview(self, job_id: str) -> bytes:
        """Return the newest preview of a running job, submitted with ``partial_images``, as PNG.

        Raises `DarkroomClientError` (404) before the first one and after the end.
        """
        return (await self._send(calls.preview(job_id))).content

    async def images(self, job: JobView) -> tuple[bytes, ...]:
        """Return every picture of a finished job as PNG files."""
        return tuple([await self.image(job.id, index) for index in range(len(job.images))])

    async def models(self) -> tuple[ModelView, ...]:
        """Return the models that may be asked for."""
        return calls.read(ModelList, await self._send(calls.models())).value

    async def _send(self, call: Call, *, stream: bool = False) -> httpx.Response:
        """Return an answer that is no refusal; with ``stream``, unread and to be closed."""
        try:
            request = self._http.build_request(
                call.method, call.url, params=call.params, headers=call.headers, json=call.json
            )
        except httpx.InvalidURL as error:
            raise refused(None, self._base_url, error) from error
        done = 0
        while True:
            answer: httpx.Response | None = None
            failure: Exception | None = None
            try:
                answer = await self._http.send(request, stream=stream)
                if answer.is_success:
                    return answer
                await answer.aread()
            except httpx.TransportError as error:
                answer, failure = None, error
            pause = self._retries.pause(done, answer)
            if pause is None:
                raise refused(answer, self._base_url, failure) from failure
            done += 1
            await asyncio.sleep(pause)

    async def _events(self, call: Call) -> AsyncGenerator[ServerEvent, None]:
        """Yield events until the connection ends, well or not."""
        parser = EventParser()
        answer = await self._send(call, stream=True)
        try:
            calls.check_is_stream(answer)
            async for chunk in answer.aiter_bytes():
                for event in parser.feed(chunk):
                    yield event
        except httpx.TransportError:
            return  # taken up again like a stream that the server ended
        finally:
            await answer.aclose()
