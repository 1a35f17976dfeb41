"""Azure Scheduled Events from a metadata service on the loopback."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.worker.processes import Machine
from tests.worker.site import eventually
from worker.background import beside
from worker.drain import Drain
from worker.preemption import watch_scheduled_events

ME, NEIGHBOUR = "aks-gpu-12345678-vmss_0", "aks-gpu-12345678-vmss_1"


class MetadataService(ThreadingHTTPServer):
    """Answers as the instance metadata service does, with ``events``; 400 without the header."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[dict[str, Any]] = []
        self.broken = False
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/metadata/scheduledevents"

    def announce(self, kind: str, machine: str) -> None:
        self.events = [
            {
                "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
                "EventType": kind,
                "ResourceType": "VirtualMachine",
                "Resources": [machine],
                "EventStatus": "Scheduled",
                "NotBefore": "Sat, 21 Nov 2026 22:58:38 GMT",
            }
        ]


class _Handler(BaseHTTPRequestHandler):
    server: MetadataService

    def do_GET(self) -> None:
        if self.headers.get("Metadata") != "true" or "api-version=" not in self.path:
            self._answer(400, b"")
        elif self.path.startswith("/metadata/instance/compute/name"):
            self._answer(200, ME.encode())
        elif self.server.broken:
            self._answer(500, b"")
        else:
            body = {"DocumentIncarnation": 1, "Events": self.server.events}
            self._answer(200, json.dumps(body).encode())
        self.server.asked += 1

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[MetadataService]:
    server = MetadataService()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@asynccontextmanager
async def watching(service: MetadataService) -> AsyncIterator[Drain]:
    drain = Drain(grace_seconds=60)
    async with beside(watch_scheduled_events(service.url, drain, poll_seconds=0.01), "watch"):
        yield drain


async def _asked_again(service: MetadataService, times: int = 4) -> None:
    before = service.asked

    async def more() -> bool:
        return service.asked >= before + times

    await eventually(more)


@pytest.mark.parametrize("kind", ["Preempt", "Terminate", "Reboot", "Redeploy"])
async def test_an_event_that_ends_this_machine_begins_the_drain(
    service: MetadataService, kind: str
) -> None:
    async with watching(service) as drain:
        await _asked_again(service)
        assert not drain.begun.is_set()
        service.announce(kind, ME)
        async with asyncio.timeout(5):
            await drain.begun.wait()


@pytest.mark.parametrize(("kind", "machine"), [("Preempt", NEIGHBOUR), ("Freeze", ME)])
async def test_a_neighbours_end_and_a_short_freeze_are_no_reason_to_leave(
    service: MetadataService, kind: str, machine: str
) -> None:
    service.announce(kind, machine)
    async with watching(service) as drain:
        await _asked_again(service)
        assert not drain.begun.is_set()


async def test_a_service_that_fails_is_asked_again(service: MetadataService) -> None:
    service.broken = True
    service.announce("Preempt", ME)
    async with watching(service) as drain:
        await _asked_again(service)
        assert not drain.begun.is_set()
        service.broken = False
        async with asyncio.timeout(5):
            await drain.begun.wait()


async def test_a_worker_process_leaves_before_its_machine_is_taken(
    service: MetadataService, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    async with machine.worker(scheduled_events_url=service.url, grace_seconds=0.1) as worker:
        await worker.logged("ready")
        service.announce("Preempt", ME)
        assert await worker.exit_code() == 0
        assert (await worker.logged("drain_begun"))["reason"] == "Preempt"
