"""What everything that talks to a Kubernetes API server shares: retries, and errors of ours.

Retries
    Throttling (429), 5xx, and connections that break or do not open are tried again after 0.2,
    0.4, 0.8 and 1.6 s give or take a third, or after what ``Retry-After`` says, at most 10 s.
    Every call that Darkroom makes is harmless to repeat: a create whose answer was lost is answered
    with 409 the second time.
Errors
    404 is `NotFound`, 409 `Conflict`, everything else that lasts `QueueUnavailable`. What the
    server said is dropped but for the fields that a 422 names: it may quote whole objects.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeVar

import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ConfigError, LoadResourceError

from darkroom.errors import Conflict, NotFound, QueueUnavailable, SettingsError

T = TypeVar("T")

WAITS_SECONDS = (0.2, 0.4, 0.8, 1.6)
LONGEST_WAIT_SECONDS = 10.0
PAGE = 500  # objects in one answer to a list
UNPROCESSABLE = 422


def connect() -> AsyncClient:
    """Return a client of the cluster that this process runs in, or of the kubeconfig.

    The service account's token is read anew when it has been rotated. Raises `SettingsError`.
    """
    try:
        return AsyncClient(KubeConfig.from_env().get())
    except (ConfigError, LoadResourceError, OSError, KeyError) as error:
        raise SettingsError(
            "kubernetes:// needs a cluster: neither a service account's token nor a kubeconfig"
            f" can be read ({type(error).__name__})",
            target="DARKROOM_QUEUE_URL",
        ) from error


async def patiently(doing: str, call: Callable[[], Awaitable[T]]) -> T:
    """Make ``call`` while ``doing`` (a gerund phrase), again while the server is busy or away.

    Raises `NotFound`, `Conflict`, `QueueUnavailable`.
    """
    for wait in WAITS_SECONDS:
        try:
            return await call()
        except httpx2.HTTPStatusError as error:
            if not _is_passing(error.response.status_code):
                raise _translated(doing, error) from None
            seconds = _asked_wait(error.response) or random.uniform(wait / 1.5, wait * 1.5)  # noqa: S311 -- jitter
        except (httpx2.HTTPError, OSError):
            seconds = random.uniform(wait / 1.5, wait * 1.5)  # noqa: S311 -- jitter
        await asyncio.sleep(seconds)
    try:
        return await call()
    except (httpx2.HTTPError, OSError) as error:
        raise _translated(doing, error) from None


async def gathered(objects: AsyncIterable[T]) -> list[T]:
    """Return everything that a list call yields, page by page."""
    return [each async for each in objects]


def _is_passing(status: int) -> bool:
    return status in {410, 429} or status >= 500  # 410: a page of a list that was read too late


def _asked_wait(response: httpx2.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT_SECONDS) if text.isdigit() else None


def _translated(doing: str, error: Exception) -> NotFound | Conflict | QueueUnavailable:
    if not isinstance(error, httpx2.HTTPStatusError):
        return QueueUnavailable(f"{doing}: {type(error).__name__}")
    status = error.response.status_code
    if status == 404:
        return NotFound(f"{doing}: there is no such object")
    if status == 409:
        return Conflict(f"{doing}: somebody else was faster")
    if status == 403:
        return QueueUnavailable(f"{doing}: status 403, no right to it or no quota left")
    if status == UNPROCESSABLE:
        return QueueUnavailable(f"{doing}: status 422, refused fields: {_fields(error.response)}")
    return QueueUnavailable(f"{doing}: status {status}")


def _fields(response: httpx2.Response) -> str:
    try:
        causes = json.loads(response.content)["details"]["causes"]
        return ", ".join(sorted({str(cause["field"]) for cause in causes}))
    except (ValueError, KeyError, TypeError):
        return "not named"
