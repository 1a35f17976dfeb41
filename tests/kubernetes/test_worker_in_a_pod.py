"""A real worker process as a pod's container: what it exits with is what becomes of its job."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from darkroom.catalog import load_catalog
from darkroom.clock import SystemClock
from darkroom.errors import QueueUnavailable, StoreUnavailable
from darkroom.imagestores.base import output_name
from darkroom.imagestores.filesystem import FilesystemImageStore
from darkroom.jobs import Job, JobState, claim
from darkroom.jobstores.sqlite import SCHEMA, SqliteJobStore
from darkroom.messages import message_for
from darkroom.queues import sqlite as sqlite_queues
from darkroom.sqlite import Database
from tests.kubernetes.cluster import KILLED, NAMESPACE, Cluster, RunningPod, running_cluster
from tests.samples import make_generation, make_job
from tests.worker.site import Site, eventually, write_catalog
from worker.deletion_cost import ANNOTATION

Process = asyncio.subprocess.Process


@dataclass
class Place:
    """A cluster, the stores that its workers share, and the environment of their pods."""

    cluster: Cluster
    site: Site
    variables: dict[str, str]
    folder: Path

    async def submit(self, **asked: object) -> str:
        now = self.site.clock.now()
        small = {"width": 64, "height": 64, "num_inference_steps": 4, **asked}
        job = make_job(
            pool="short", generation=make_generation(**small), created_at=now, updated_at=now
        )
        await self.site.jobs.create(job)
        await self.cluster.queue(max_delivery_count=4).send(message_for(job))
        return job.id

    @asynccontextmanager
    async def pod(self, **variables: str) -> AsyncIterator[tuple[RunningPod, Process]]:
        """Start the pod of the one Job, with the worker's process in it."""
        (job,) = self.cluster.startable()
        pod = self.cluster.start(job)
        process = await self.start(
            DARKROOM_WORKER_POD_NAME=pod.pod["metadata"]["name"],
            DARKROOM_WORKER_JOB_NAME=job["metadata"]["name"],
            DARKROOM_WORKER_TERMINATION_LOG=str(pod.log),
            **variables,
        )
        try:
            yield pod, process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def start(self, **variables: str) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", "worker",
            env={**os.environ, **self.variables, **variables},  # noqa: TID251
            stderr=(self.folder / "log").open("ab"),
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    async def run(self, **variables: str) -> int:
        """Run a pod to its end, let the controller see it, and return the exit status."""
        async with self.pod(**variables) as (pod, process):
            status = await asyncio.wait_for(process.wait(), 30)
            pod.exit(status)
            return status

    async def job(self, job_id: str) -> Job:
        return await self.site.jobs.get(job_id)

    async def phase(self, job_id: str, state: JobState) -> None:
        async def there() -> bool:
            return (await self.job(job_id)).status is state

        await eventually(there, 30)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    catalog = write_catalog(tmp_path, max_gpu_seconds=1)
    jobs = SqliteJobStore(Database(tmp_path / "jobs.db", SCHEMA, StoreUnavailable), SystemClock())
    images = FilesystemImageStore(tmp_path / "images")
    async with running_cluster(tmp_path) as cluster:
        server = str(cluster.clients("worker").config.cluster.server)
        config = {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "worker"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        variables = {
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            "DARKROOM_CATALOG": str(catalog),
            "DARKROOM_QUEUE_URL": f"kubernetes://{NAMESPACE}",
            "DARKROOM_JOBSTORE_URL": f"sqlite:///{tmp_path}/jobs.db",
            "DARKROOM_IMAGESTORE_URL": f"file:///{tmp_path}/images",
            "DARKROOM_MAX_DELIVERY_COUNT": "3",
            "DARKROOM_WORKER_ENGINE": "fake",
            "DARKROOM_WORKER_WARM_MODELS": "",
            "DARKROOM_WORKER_POLL_SECONDS": "0.2",
        }
        queue = cluster.queue()
        site = Site(queue, jobs, images, load_catalog(catalog))
        yield Place(cluster, site, variables, tmp_path)
    await jobs.close()


async def test_a_pod_makes_its_picture_and_exits_with_0(place: Place) -> None:
    job_id = await place.submit()
    assert await place.run() == 0
    assert (await place.job(job_id)).status is JobState.SUCCEEDED
    assert (await place.site.images.get(job_id, output_name(0))).startswith(b"\x89PNG")
    depth = await place.cluster.queue().depth()
    assert (depth.active, depth.dead_lettered) == (0, 0)


async def test_a_pod_that_is_evicted_gives_its_job_back_uncounted(place: Place) -> None:
    job_id = await place.submit(num_inference_steps=50)
    variables = {"DARKROOM_WORKER_FAKE_STEP_SECONDS": "0.5", "DARKROOM_WORKER_GRACE_SECONDS": "1"}
    async with place.pod(**variables) as (pod, process):
        await place.phase(job_id, JobState.RUNNING)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 75
        pod.exit(75)
    assert (await place.job(job_id)).status is JobState.NOT_STARTED
    await place.cluster.advance(10)
    assert await place.run() == 0
    assert (await place.job(job_id)).status is JobState.SUCCEEDED


async def test_a_message_of_another_release_counts_and_is_tried_again(place: Place) -> None:
    await place.submit()
    (job,) = place.cluster.server.all("batch", "jobs")
    job["metadata"]["annotations"]["darkroom/message"] = '{"version": 99}'
    assert await place.run() == 1
    assert job["status"]["failed"] == 1


async def test_after_the_last_delivery_the_record_says_failed_and_the_job_is_a_dead_letter(
    place: Place,
) -> None:
    job_id = await place.submit()
    long_ago = place.site.clock.now() - timedelta(hours=1)
    for _ in range(3):
        await place.site.write(job_id, lambda job: claim(job, long_ago, 60))
        place.cluster.start(place.cluster.startable()[0]).exit(KILLED)
        await place.cluster.advance(360)
    assert await place.run() == 65
    record = await place.job(job_id)
    assert record.status is JobState.FAILED
    assert record.error is not None
    (dead,) = await place.cluster.queue().dead_letters()
    assert (dead.message_id, dead.reason) == (job_id, record.error.code)
    assert dead.delivery_count == 4


async def test_a_canceled_job_ends_its_pod_in_order(place: Place) -> None:
    job_id = await place.submit(num_inference_steps=50)
    async with place.pod(DARKROOM_WORKER_FAKE_STEP_SECONDS="0.2") as (pod, process):
        await place.phase(job_id, JobState.RUNNING)
        await place.site.cancel(job_id)
        status = await asyncio.wait_for(process.wait(), 30)
        pod.exit(status)
    assert status == 0
    assert (await place.job(job_id)).status is JobState.CANCELED


async def test_a_long_lived_worker_says_how_dear_it_is(place: Place, tmp_path: Path) -> None:
    """A Deployment's worker, on a queue: only its pod's annotation is Kubernetes' business."""
    meta = {"name": "w-1", "namespace": NAMESPACE}
    pod = place.cluster.server.add("", "pods", {"metadata": meta})
    queue = sqlite_queues.SqliteJobQueue(
        Database(tmp_path / "queue.db", sqlite_queues.SCHEMA, QueueUnavailable),
        "short",
        lease_seconds=60,
        max_delivery_count=4,
    )
    process = await place.start(
        DARKROOM_QUEUE_URL=f"sqlite:///{tmp_path}/queue.db",
        DARKROOM_WORKER_POD_NAME="w-1",
        DARKROOM_WORKER_POD_NAMESPACE=NAMESPACE,
        DARKROOM_WORKER_DELETION_COST="true",
        DARKROOM_WORKER_FAKE_STEP_SECONDS="0.3",
    )
    try:
        job = await place.site.create()
        await queue.send(message_for(job))

        async def is_dear() -> bool:
            return pod["metadata"].get("annotations", {}).get(ANNOTATION) == "1000"

        await eventually(is_dear, 30)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await queue.close()
