"""The API on Kubernetes-native dispatch: the same records, with Jobs for messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from darkroom.messages import message_for
from darkroom.queues.base import MAX_DELIVERY_COUNT_EXCEEDED, JobQueue
from tests.api.stack import Stack, open_stack
from tests.kubernetes.api_server import Object
from tests.kubernetes.cluster import KILLED, Cluster, pod_template, running_cluster


@dataclass
class Site:
    stack: Stack
    cluster: Cluster

    @property
    def jobs(self) -> list[Object]:
        return list(self.cluster.server.all("batch", "jobs"))


def queues(cluster: Cluster) -> dict[str, JobQueue]:
    return {name: cluster.queue(name) for name in ("short", "long")}


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[Site]:
    async with running_cluster(folder) as cluster:
        cluster.server.add("", "podtemplates", pod_template("darkroom-long"))
        async with open_stack(queues=queues(cluster)) as stack:
            yield Site(stack, cluster)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as opened:
        yield opened


async def test_a_submit_makes_a_job_object_and_a_cancel_deletes_it(site: Site) -> None:
    job = await site.stack.submit()
    assert [each["metadata"]["name"] for each in site.jobs] == [job["id"]]
    answer = await site.stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert answer.json()["status"] == "Canceled"
    assert site.jobs == []


async def test_a_running_jobs_object_stays_until_its_worker_has_said_so(site: Site) -> None:
    job = await site.stack.submit()
    pod = site.cluster.start(site.cluster.startable()[0])
    lease = await pod.hold()
    await site.stack.begin(job["id"])
    answer = await site.stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert answer.json()["status"] == "Running"
    assert len(site.jobs) == 1, "it is what repairs a crash before the worker has written the end"
    await site.stack.finish(job["id"])
    await lease.complete()
    pod.exit()
    assert (await site.stack.http.get(f"/v1/jobs/{job['id']}")).json()["status"] == "Canceled"


async def test_a_cancel_does_not_need_the_api_server(site: Site) -> None:
    job = await site.stack.submit()
    site.cluster.server.allowed = lambda call: False
    answer = await site.stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "Canceled")
    assert len(site.jobs) == 1, "its pod will find the record ended, and complete"


async def test_a_submit_that_died_before_its_job_object_is_made_good_by_the_sweeper(
    site: Site,
) -> None:
    site.cluster.server.allowed = lambda call: call.verb != "create"
    job = await site.stack.submit()
    assert site.jobs == []
    site.cluster.server.allowed = lambda call: True
    site.stack.clock.advance(60)
    assert await site.stack.state.sweeper.sweep() == 1
    assert [each["metadata"]["name"] for each in site.jobs] == [job["id"]]


async def test_a_send_whose_note_was_lost_makes_no_second_object(site: Site) -> None:
    site.cluster.server.allowed = lambda call: call.verb != "create"
    job = await site.stack.submit()
    site.cluster.server.allowed = lambda call: True
    record = await site.stack.state.jobs.get(job["id"])
    other = queues(site.cluster)["short"]  # another replica, which dies before it notes the send
    await other.send(message_for(record))
    site.stack.clock.advance(60)
    assert await site.stack.state.sweeper.sweep() == 1
    assert len(site.jobs) == 1


async def test_a_job_whose_pods_all_died_ends_as_failed(site: Site) -> None:
    job = await site.stack.submit()
    for _ in range(3):
        site.cluster.start(site.cluster.startable()[0]).exit(KILLED)
        await site.cluster.advance(360)
    sweeper = site.stack.state.sweeper
    assert await sweeper._exhausted.end() == 1
    body = (await site.stack.http.get(f"/v1/jobs/{job['id']}")).json()
    assert (body["status"], body["error"]["code"]) == ("Failed", MAX_DELIVERY_COUNT_EXCEEDED)
    dead = (await site.stack.http.get("/v1/dead-letters")).json()["value"]
    assert [each["message_id"] for each in dead] == [job["id"]]
    path = f"/v1/dead-letters/short/{job['id']}"
    again = (await site.stack.http.post(f"{path}:resubmit")).json()
    assert again["outcome"] == "admitted"
    assert [each["metadata"]["name"] for each in site.jobs] == [again["job_id"]]


async def test_a_discarded_dead_letters_object_is_deleted(site: Site) -> None:
    job = await site.stack.submit()
    pod = site.cluster.start(site.cluster.startable()[0])
    await (await pod.hold()).dead_letter("OutOfMemory", "Too large.")
    pod.exit()
    path = f"/v1/dead-letters/short/{job['id']}"
    assert (await site.stack.http.get(path)).json()["reason"] == "OutOfMemory"
    assert (await site.stack.http.post(f"{path}:discard")).status_code == 204
    assert site.jobs == []


async def test_the_sweeper_looks_after_the_queues_and_passes_over_one_that_is_away(
    site: Site,
) -> None:
    await site.stack.submit()
    (job,) = site.jobs
    pod = site.cluster.start(site.cluster.startable()[0])
    await (await pod.hold()).complete()
    pod.exit()
    await site.cluster.advance(3_600)
    site.cluster.server.allowed = lambda call: False
    await site.stack.state.sweeper.tend()
    assert site.jobs == [job]
    site.cluster.server.allowed = lambda call: True
    await site.stack.state.sweeper.tend()
    assert site.jobs == []
