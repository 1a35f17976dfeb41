"""Azure Scheduled Events: hear of an eviction before SIGTERM does, and begin the drain then.

A Spot node learns at least 30 s ahead that it is to be taken. The instance metadata service tells
every machine of a scale set about all of them, so the events are matched by the machine's name,
which the same service knows. Source: Microsoft Learn, "Azure Metadata Service: Scheduled Events for
Linux VMs", api-version 2020-07-01: poll once a second, header ``Metadata: true``, no proxy.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import httpx

from darkroom.log import get_logger
from worker.drain import Drain

POLL_SECONDS = 1.0
REQUEST_SECONDS = 5.0
API_VERSION = "2020-07-01"
NAME_PATH = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
ENDING = frozenset({"Preempt", "Terminate", "Reboot", "Redeploy"})

log = get_logger()


async def watch_scheduled_events(
    url: str, drain: Drain, poll_seconds: float = POLL_SECONDS
) -> None:
    """Poll ``url`` until an event will end this machine, then begin ``drain`` and return.

    A service that does not answer is asked again: SIGTERM comes anyway.
    """
    name: str | None = None
    async with httpx.AsyncClient(
        headers={"Metadata": "true"}, timeout=REQUEST_SECONDS, trust_env=False
    ) as client:
        while True:
            try:
                name = name or await _machine_name(client, url)
                event = _ending_event(await _events(client, url), name)
            except (httpx.HTTPError, ValueError) as error:
                log.warning("scheduled_events_unavailable", error=type(error).__name__)
                event = None
            if event is not None:
                drain.begin(event)
                return
            await asyncio.sleep(poll_seconds)


async def _machine_name(client: httpx.AsyncClient, url: str) -> str:
    origin = urlsplit(url)
    answer = await client.get(f"{origin.scheme}://{origin.netloc}{NAME_PATH}")
    return answer.raise_for_status().text.strip()


async def _events(client: httpx.AsyncClient, url: str) -> list[dict[str, Any]]:
    params = None if "api-version=" in url else {"api-version": API_VERSION}
    answer = await client.get(url, params=params)
    body = answer.raise_for_status().json()
    events = body.get("Events") if isinstance(body, dict) else None
    return [event for event in events or [] if isinstance(event, dict)]


def _ending_event(events: list[dict[str, Any]], name: str) -> str | None:
    """Return the type of the first event that ends the machine called ``name``."""
    for event in events:
        if event.get("EventType") in ENDING and name in event.get("Resources", ()):
            return str(event["EventType"])
    return None
