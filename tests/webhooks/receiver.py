"""A receiver of webhooks on a free port of this machine, and a sender with a clock that tests move.

The names of receivers mean what the test says: nothing is looked up outside.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from api.webhooks.posting import Poster
from api.webhooks.secrets import Secrets
from api.webhooks.sender import Sender
from api.webhooks.settings import WebhookSettings
from api.webhooks.wiring import build_sender
from darkroom import webhooks
from darkroom.announcing import AnnouncingJobStore
from darkroom.clock import FakeClock
from darkroom.jobs import Job, request_cancel
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.metrics import WebhookMetrics
from darkroom.queues.memory import MemoryJobQueue
from darkroom.webhooks import Webhook
from tests.samples import make_job

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()
LOOPBACK: dict[str, Any] = {"allow_loopback": True, "timeout_seconds": 20, "poll_seconds": 0.05}


@dataclass
class Receiver:
    """What came. ``answer`` gives the status of the next answer; it may wait."""

    port: int = 0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[], Awaitable[int]] | None = None
    status: int = 200
    extra: str = ""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.requests]


async def _serve(
    receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): text for name, text in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        receiver.requests.append((headers, body))
        status = await receiver.answer() if receiver.answer else receiver.status
        writer.write(f"HTTP/1.1 {status} X\r\n{receiver.extra}content-length: 0\r\n\r\n".encode())
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def receiving(ssl: Any = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await _serve(receiver, reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ssl)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def this_machine(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@dataclass(frozen=True)
class Post:
    """A sender on memory adapters."""

    sender: Sender
    poster: Poster
    jobs: AnnouncingJobStore
    queue: MemoryJobQueue
    clock: FakeClock
    metrics: WebhookMetrics

    async def ended(self, url: str, **fields: Any) -> Job:
        """Have a job canceled that tells ``url``; return it."""
        hook = Webhook(url=url)
        made = make_job(**{"created_at": self.clock.now(), "webhook": hook, **fields})
        job = (await self.jobs.create(made)).job
        return await self.jobs.compare_and_set(request_cancel(job, self.clock.now()), job.version)

    async def deliver(self) -> int:
        """Deliver what is due, one after the other; return how many messages that were."""
        count = 0
        while leases := await self.queue.lease(10, 0):
            for lease in leases:
                await self.sender._delivering.handle(lease)
                count += 1
        return count

    def attempts(self, outcome: str) -> float:
        return float(self.metrics.attempts.labels(outcome)._value.get())


@asynccontextmanager
async def posting(
    folder: Path,
    *,
    resolve: Callable[[str, int], Awaitable[Sequence[str]]] = this_machine,
    secrets: Sequence[str] = (SECRET,),
    ssl_context: Any = None,
    queue: Any = None,
    jobs: Any = None,
    **settings: Any,
) -> AsyncIterator[Post]:
    clock = FakeClock()
    path = folder / "webhook-secrets.yaml"
    write_secrets(path, {"acme": list(secrets), "other": [SECRET]})
    limits = {"lease_seconds": 60.0, "max_delivery_count": webhooks.MAX_DELIVERY_COUNT}
    queue = queue(clock) if callable(queue) else queue
    queue = queue or MemoryJobQueue(**limits, clock=clock)  # type: ignore[arg-type]
    store = AnnouncingJobStore(jobs or MemoryJobStore(clock), queue, clock)
    metrics = WebhookMetrics(CollectorRegistry())
    chosen = WebhookSettings.model_construct(
        **{**WebhookSettings.model_validate({}).model_dump(), **LOOPBACK, **settings}
    )
    sender, poster = build_sender(
        chosen,
        queue=queue,
        jobs=store,
        secrets=Secrets(path, clock),
        clock=clock,
        metrics=metrics,
        resolve=resolve,
        ssl_context=ssl_context,
    )
    yield Post(sender, poster, store, queue, clock, metrics)
    await poster.close()


def write_secrets(path: Path, tenants: dict[str, list[str]]) -> None:
    listed = [{"tenant": name, "secrets": found} for name, found in tenants.items()]
    path.write_text(yaml.safe_dump({"tenants": listed}))
