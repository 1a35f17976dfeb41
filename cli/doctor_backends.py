"""The doctor's look at settings, catalog and backends: real calls that leave nothing behind."""

from collections.abc import Sequence
from contextlib import suppress

from cli.doctor_findings import Finding, Verdict, fail, ok, warn
from darkroom.catalog import Catalog
from darkroom.errors import JobNotFound, SettingsError
from darkroom.imagestores.base import ImageStore, output_name
from darkroom.jobs import new_job_id
from darkroom.jobstores.base import JobStore
from darkroom.queues.base import JobQueue
from darkroom.settings import DarkroomSettings, load
from worker.settings import WorkerSettings

LOOKED_FOR = "doctor"  # the tenant whose job is asked for, and never there
PICTURE = b"\x89PNG\r\n\x1a\n" + b"what the doctor stores and takes away again"


def settings_agree(settings: DarkroomSettings, catalog: Catalog) -> Sequence[Finding]:
    """Check what one settings class alone cannot: workers against pools, backends among themselves.

    A lease of less than three renewals is refused before, where the settings are read.
    """
    name, findings = "settings", []
    try:
        worker = load(WorkerSettings)
        for pool in catalog.pools:
            if worker.pool in {"", pool.name}:
                worker.grace_for(pool)
    except SettingsError as error:
        findings.append(fail(name, error.message, "change the variable or the pool"))
    in_memory = [
        f"DARKROOM_{field.upper()}"
        for field in ("queue_url", "jobstore_url", "imagestore_url")
        if getattr(settings, field).startswith("memory://")
    ]
    if in_memory:
        cure = "set sqlite:// and file://, or the URLs of a cluster"
        findings.append(warn(name, f"{', '.join(in_memory)} is lost with its process", cure))
    lease, most = settings.lease_seconds, settings.max_delivery_count
    return findings or [ok(name, f"lease {lease:g} s, {most} deliveries")]


async def queue_answers(pool: str, queue: JobQueue) -> Sequence[Finding]:
    """Count the messages; dead letters are worth a warning. Raises `QueueUnavailable`."""
    depth = await queue.depth()
    seen = f"{depth.active} active, {depth.scheduled} scheduled, {depth.dead_lettered} dead"
    if depth.dead_lettered:
        cure = "darkroom dead-letters list"
        return [Finding(f"queue {pool}", Verdict.WARN, seen, cure)]
    return [ok(f"queue {pool}", seen)]


async def job_store_answers(jobs: JobStore, region: str) -> Sequence[Finding]:
    """Ask for a job that is none. Raises `StoreUnavailable`."""
    with suppress(JobNotFound):
        await jobs.get(new_job_id(region, LOOKED_FOR))
    return [ok("job store", "answers")]


async def image_store_keeps(images: ImageStore, region: str) -> Sequence[Finding]:
    """Store a picture, read it back, and delete it. Raises `StoreUnavailable`."""
    name, job_id = "image store", new_job_id(region, LOOKED_FOR)
    await images.put(job_id, output_name(0), PICTURE)
    try:
        same = await images.get(job_id, output_name(0)) == PICTURE
    finally:
        await images.delete(job_id)
    if not same:
        return [fail(name, "gave back other bytes than it was given", "look into the store")]
    return [ok(name, "stores, reads and deletes")]
