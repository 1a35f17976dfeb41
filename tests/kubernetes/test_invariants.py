"""Whatever happens to pods, API server and replicas: each job has one end, and no Job is left over.

Real workers run in the pods, with an engine that needs no GPU. Time in the cluster is moved; the
claims of the records run on the machine's clock, and are short.
"""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from api.exhausted import Exhausted
from darkroom import kubernetes_clients
from darkroom.catalog import load_catalog
from darkroom.errors import QueueUnavailable
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import JobState
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.messages import message_for
from tests.kubernetes.api_server import Refusal
from tests.kubernetes.cluster import KILLED, Cluster, RunningPod
from tests.worker.site import Site, write_catalog
from worker.background import beside
from worker.drain import Drain
from worker.engines.fake import FakeEngine
from worker.pod import leave_when_finished

JOBS = 14
PODS = 4


class Chaos:
    """A pool's pods, and what is done to them."""

    def __init__(self, cluster: Cluster, site: Site, chance: random.Random) -> None:
        self.cluster = cluster
        self.site = site
        self.chance = chance
        self.running: dict[asyncio.Task[None], RunningPod] = {}
        self.deeds: Counter[str] = Counter()

    async def work(self, pod: RunningPod, drain: Drain) -> None:
        """What a worker's process does from its start to its exit."""
        worker = self.site.changed(queue=pod.queue).build(FakeEngine(step_seconds=0.02), drain)
        async with beside(leave_when_finished(pod.queue, drain), "finished"):
            await worker.run()
        pod.exit()

    def start(self) -> None:
        self.cluster.admit()
        for job in self.cluster.startable()[: PODS - len(self.running)]:
            pod, drain = self.cluster.start(job), Drain(grace_seconds=0.05)
            task = asyncio.create_task(self.work(pod, drain))
            self.running[task] = pod
            deed = self.chance.choice(["let", "crash", "crash", "evict", "preempt"])
            self.deeds[deed] += 1
            delay = self.chance.uniform(0, 0.25)
            if deed == "crash":
                asyncio.get_running_loop().call_later(delay, task.cancel)
            elif deed == "evict":
                asyncio.get_running_loop().call_later(delay, drain.begin, "evicted")
            elif deed == "preempt":
                asyncio.get_running_loop().call_later(delay, self.preempt, pod, drain)

    def preempt(self, pod: RunningPod, drain: Drain) -> None:
        if pod.pod["status"]["phase"] == "Running" and pod.pod in self.cluster.server.all(
            "", "pods"
        ):
            self.cluster.preempt(pod)
            drain.begin("preempted")

    def reap(self) -> None:
        for task in [each for each in self.running if each.done()]:
            pod = self.running.pop(task)
            if task.cancelled() or task.exception() is not None:
                pod.exit(KILLED, disrupted=self.chance.random() < 0.3)

    async def disturb(self, ids: list[str]) -> None:
        deed = self.chance.choice(["outage", "again", "cancel", "nothing", "nothing"])
        self.deeds[deed] += 1
        if deed == "outage":
            self.cluster.server.refusals += [Refusal(503)] * self.chance.randrange(4)
        elif deed == "again":
            job = await self.site.jobs.get(self.chance.choice(ids))
            with suppress(QueueUnavailable):
                await self.cluster.queue(max_delivery_count=4).send(message_for(job))
        elif deed == "cancel" and self.deeds["cancel"] < JOBS / 4:
            job = await self.site.cancel(self.chance.choice(ids))
            if job.status.is_terminal:
                with suppress(QueueUnavailable):
                    await self.cluster.queue().withdraw(job.id)


@pytest.mark.parametrize("seed", range(4))
async def test_every_job_has_one_end(
    cluster: Cluster, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_clients, "WAITS_SECONDS", (0.01,) * 4)
    chance = random.Random(seed)
    jobs = MemoryJobStore()
    site = Site(
        cluster.queue(max_delivery_count=4),
        jobs,
        MemoryImageStore(),
        load_catalog(write_catalog(tmp_path)),
        renew_seconds=0.1,
        claim_seconds=0.3,
    )
    chaos = Chaos(cluster, site, chance)
    ids = [await site.submit(num_inference_steps=chance.randrange(2, 12)) for _ in range(JOBS)]
    exhausted = Exhausted({"short": site.queue}, jobs, site.clock)
    ends: dict[str, JobState] = {}
    async with asyncio.timeout(60):
        while True:
            chaos.start()
            await asyncio.sleep(0.03)
            chaos.reap()
            if chance.random() < 0.6:
                await chaos.disturb(ids)
            await cluster.advance(5 if chaos.running else 60)  # leases of 30 s are renewed
            await exhausted.end()
            for job_id in ids:
                job = await jobs.get(job_id)
                if job.status.is_terminal:
                    assert ends.setdefault(job_id, job.status) is job.status, "an end is final"
            if len(ends) == JOBS and not chaos.running:
                break
    for job_id, end in ends.items():
        assert (end is JobState.SUCCEEDED) <= await site.has_image(job_id)
    while (await site.queue.depth()).active or (await site.queue.depth()).scheduled:
        chaos.start()  # pods that find their job's record ended, and complete
        await asyncio.sleep(0.03)
        chaos.reap()
        await cluster.advance(360)
    assert chaos.deeds["crash"] + chaos.deeds["evict"] > 0
    assert Counter(ends.values())[JobState.SUCCEEDED] > 0
