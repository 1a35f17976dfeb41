"""Processes that kill themselves with SIGKILL right after one effect of telling a job's end.

``python -m tests.webhooks.dying FOLDER URL`` runs each of `POINTS` in a process of its own, on
stores in ``FOLDER/<point>``: it ends a job that tells ``URL``, then delivers the event. The
processes are forked from one that has imported everything, which saves most of their start.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from api.webhooks.secrets import Secrets
from api.webhooks.settings import WebhookSettings
from api.webhooks.wiring import build_sender
from darkroom.announcing import AnnouncingJobStore
from darkroom.clock import FakeClock, SystemClock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.jobs import request_cancel
from darkroom.jobstores import sqlite as sqlite_jobs
from darkroom.metrics import WebhookMetrics
from darkroom.queues import sqlite as sqlite_queues
from darkroom.sqlite import Database
from darkroom.webhooks import MAX_DELIVERY_COUNT, Webhook
from tests.api.dying_api import Dying
from tests.samples import make_job
from tests.webhooks.receiver import SECRET, this_machine, write_secrets

POINTS = ("ended", "sent", "marked", "leased", "posted", "completed")
LEASE_SECONDS = 60.0


def open_stores(folder: Path, clock: Any) -> tuple[Any, Any]:
    """Return the job store and the events' queue of ``folder``."""
    jobs = Database(folder / "jobs.db", sqlite_jobs.SCHEMA, StoreUnavailable)
    queue = Database(folder / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable)
    return sqlite_jobs.SqliteJobStore(jobs, clock), sqlite_queues.SqliteJobQueue(
        queue,
        "webhooks",
        lease_seconds=LEASE_SECONDS,
        max_delivery_count=MAX_DELIVERY_COUNT,
        clock=clock,
    )


async def end_and_tell(point: str, folder: Path, url: str) -> None:
    clock = SystemClock()
    jobs, queue = open_stores(folder, clock)
    job = (await jobs.create(make_job(webhook=Webhook(url=url), created_at=clock.now()))).job
    (folder / "id").write_text(job.id)
    if point == "ended":
        jobs = Dying(jobs, "compare_and_set")
    ending: Any = Dying(queue, "send") if point == "sent" else queue
    store = AnnouncingJobStore(jobs, ending, clock)
    await store.compare_and_set(request_cancel(job, clock.now()), job.version)
    if point == "marked":
        os.kill(os.getpid(), signal.SIGKILL)
    [lease] = await queue.lease(1, 0)
    if point == "leased":
        os.kill(os.getpid(), signal.SIGKILL)
    write_secrets(folder / "secrets.yaml", {"acme": [SECRET]})
    sender, poster = build_sender(
        WebhookSettings.model_validate({"allow_loopback": True}),
        queue=queue,
        jobs=store,
        secrets=Secrets(folder / "secrets.yaml", clock),
        clock=FakeClock(),
        metrics=WebhookMetrics(CollectorRegistry()),
        resolve=this_machine,
    )
    if point == "posted":
        poster.post = Dying(poster, "post").post  # type: ignore[method-assign]
    await sender._delivering.handle(lease)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Return 0 if each process died by SIGKILL."""
    folder, url = Path(sys.argv[1]), sys.argv[2]
    ends = []
    for point in POINTS:
        child = os.fork()
        if child == 0:
            (folder / point).mkdir()
            asyncio.run(end_and_tell(point, folder / point, url))
            os._exit(1)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return 0 if set(ends) == {-signal.SIGKILL} else 1


if __name__ == "__main__":
    sys.exit(main())
