"""A cluster that runs Jobs: the Job controller and the kubelet, played on a movable clock.

The controller does what Kubernetes documents: one pod at a time, ``podFailurePolicy`` decides which
failures count, a back-off of 10 s that doubles up to 6 min, ``backoffLimit``, ``suspend``,
``ttlSecondsAfterFinished``, pods deleted with their Job. A pod's process is a `KubernetesJobQueue`
of its own, which knows what the downward API tells it; it ends with the status that it asks for.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lightkube import AsyncClient

from darkroom.clock import FakeClock
from darkroom.messages import Message
from darkroom.queues.base import DeadLetter, JobQueue, Lease, QueueDepth
from darkroom.queues.kubernetes_jobs import KubernetesJobQueue
from darkroom.queues.kubernetes_manifests import JOB_NAME
from darkroom.queues.kubernetes_pods import PodIdentity
from tests.kubernetes.api_server import ApiServer, Object, serving, stamp

NAMESPACE = "darkroom-workers"
FIRST_BACK_OFF_SECONDS = 10.0
LONGEST_BACK_OFF_SECONDS = 360.0
KILLED = 137

Clients = Callable[[str], AsyncClient]


def pod_template(name: str = "darkroom-short", *, kueue: str | None = None) -> Object:
    """Return what the chart makes for a pool, as small as it may be."""
    labels = {"app.kubernetes.io/name": "darkroom"}
    if kueue:
        labels["kueue.x-k8s.io/queue-name"] = kueue
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/component": "worker"}},
            "spec": {
                "containers": [{"name": "worker", "image": "worker@sha256:0"}],
                "terminationGracePeriodSeconds": 330,
            },
        },
    }


class Cluster:
    """An API server, and who acts in it."""

    def __init__(
        self,
        clients: Clients,
        server: ApiServer,
        folder: Path,
        namespace: str = NAMESPACE,
        prefix: str = "darkroom",
    ) -> None:
        self.namespace = namespace
        self.prefix = prefix
        self.server = server
        self.clients = clients
        self.folder = folder
        self.retry_at: dict[str, datetime] = {}
        self.failures: dict[str, int] = {}
        self.pods: list[RunningPod] = []
        server.deleted.append(self._collect)

    @property
    def now(self) -> datetime:
        return self.server.clock.now()

    def queue(self, pool: str = "short", *, account: str = "api", **options: object) -> JobQueue:
        """Return the queue as a process of the API has it."""
        named = {"lease_seconds": 30.0, "max_delivery_count": 3, **options}
        return KubernetesJobQueue(
            self.clients(account),
            self.namespace,
            pool,
            prefix=self.prefix,
            clock=self.server.clock,
            **named,  # type: ignore[arg-type]
        )

    def startable(self) -> list[Object]:
        """Return the Jobs that the controller would start now, oldest first."""
        self.sync()
        return [
            job
            for job in self.server.all("batch", "jobs", self.namespace)
            if not job["spec"]["suspend"]
            and not finished(job)
            and not job.get("status", {}).get("active")
            and self.retry_at.get(job["metadata"]["uid"], self.now) <= self.now
        ]

    def start(self, job: Object) -> "RunningPod":
        """Start a pod for ``job``, and in it the worker's process."""
        name = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], JOB_NAME: job["metadata"]["name"]}
        pod = self.server.add(
            "",
            "pods",
            {
                "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
                "spec": template["spec"],
                "status": {"phase": "Running"},
            },
        )
        job.setdefault("status", {}).update(active=1, startTime=stamp(self.now))
        self.pods.append(RunningPod(self, job, pod))
        return self.pods[-1]

    def sync(self) -> None:
        """End pods that went silent; remove Jobs whose time after their end has passed."""
        for pod in self.pods:
            if pod.is_silent:
                pod.exit(KILLED)
        for job in self.server.all("batch", "jobs", self.namespace):
            ended = finished(job)
            ttl = timedelta(seconds=job["spec"]["ttlSecondsAfterFinished"])
            if ended is not None and self.now >= ended + ttl:
                self.server.remove("batch", "jobs", job)

    def preempt(self, pod: "RunningPod") -> None:
        """Do what Kueue and the Job controller do to make room: the pod's end will not count."""
        pod.job["spec"]["suspend"] = True
        pod.job["status"]["active"] = 0
        pod.job["status"].pop("startTime", None)
        pod.is_tracked = False

    def admit(self) -> None:
        """Let what Kueue holds start, once the pod that made room is gone."""
        leaving = [pod.job for pod in self.pods if pod.pod["status"]["phase"] == "Running"]
        for job in self.server.all("batch", "jobs", self.namespace):
            if job["spec"]["suspend"] and job not in leaving:
                job["spec"]["suspend"] = False

    async def advance(self, seconds: float) -> None:
        """Let time pass, and let the controllers see it."""
        assert isinstance(self.server.clock, FakeClock)
        self.server.clock.advance(seconds)
        self.sync()

    def ended(self, job: Object, pod: Object, exit_code: int, *, disrupted: bool) -> None:
        """Do what the controller does when a pod has ended."""
        status, uid = job["status"], job["metadata"]["uid"]
        status["active"] = 0
        if exit_code == 0:
            status.update(succeeded=1, completionTime=stamp(self.now))
            self._finish(job, "Complete", "CompletionsReached")
            return
        action = _action(job, exit_code, disrupted)
        if action != "Ignore":
            status["failed"] = status.get("failed", 0) + 1
        if action == "FailJob":
            self._finish(job, "Failed", "PodFailurePolicy")
        elif status.get("failed", 0) > job["spec"]["backoffLimit"]:
            self._finish(job, "Failed", "BackoffLimitExceeded")
        else:
            self.failures[uid] = self.failures.get(uid, 0) + 1
            wait = FIRST_BACK_OFF_SECONDS * 2 ** (self.failures[uid] - 1)
            self.retry_at[uid] = self.now + timedelta(seconds=min(wait, LONGEST_BACK_OFF_SECONDS))
        self.server.touch(job)

    def _finish(self, job: Object, how: str, reason: str) -> None:
        condition = {"type": how, "status": "True", "reason": reason}
        condition["lastTransitionTime"] = stamp(self.now)
        job["status"].setdefault("conditions", []).append(condition)

    def _collect(self, plural: str, thing: Object) -> None:
        """The garbage collector: a Job's pods go with it."""
        if plural == "jobs":
            for pod in self.server.all("", "pods", self.namespace):
                if pod["metadata"]["labels"].get(JOB_NAME) == thing["metadata"]["name"]:
                    self.server.remove("", "pods", pod)


class RunningPod:
    """A pod whose process is ours to end."""

    def __init__(self, cluster: Cluster, job: Object, pod: Object) -> None:
        self.cluster = cluster
        self.job = job
        self.pod = pod
        self.log = cluster.folder / pod["metadata"]["name"]
        identity = PodIdentity(pod["metadata"]["name"], job["metadata"]["name"], self.log)
        self.queue = cluster.queue(account="worker", pod=identity)
        self.lease: Lease | None = None
        self.is_tracked = True

    @property
    def is_silent(self) -> bool:
        """Whether the process runs and has not renewed: what a liveness probe finds."""
        is_running = self.pod["status"]["phase"] == "Running"
        return is_running and self.lease is not None and self.lease.expires_at <= self.cluster.now

    async def hold(self) -> Lease:
        """Let the process lease what there is for it."""
        (self.lease,) = await self.queue.lease(10, 0)
        return self.lease

    def exit(self, code: int | None = None, *, disrupted: bool = False) -> None:
        """End the process with ``code``, by default what its queue asks for."""
        code = self.queue.exit_status if code is None else code
        words = self.log.read_text() if self.log.exists() else ""
        terminated = {"exitCode": code, "message": words}
        self.pod["status"] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [
                {
                    "name": "worker",
                    "image": "worker",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": terminated},
                }
            ],
        }
        server = self.cluster.server
        if not self.is_tracked:
            server.remove("", "pods", self.pod)
        elif self.pod in server.all("", "pods"):
            self.cluster.ended(self.job, self.pod, code, disrupted=disrupted)


class PoolOfPods(JobQueue):
    """A consumer as the contract knows it, made of pods: each lease is a pod's, and one more pod.

    Settling ends the pod with the status that its queue asks for. A pod whose lease ran out is
    killed, as a liveness probe does.
    """

    def __init__(self, cluster: Cluster, queue: JobQueue) -> None:
        self.cluster = cluster
        self.queue = queue

    async def send(self, message: Message, *, not_before: datetime | None = None) -> None:
        await self.queue.send(message, not_before=not_before)

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + max_wait_seconds
        while True:
            await self.queue.tend()
            pods = [self.cluster.start(job) for job in self.cluster.startable()[:max_messages]]
            leases = [PodsLease(pod, await pod.hold()) for pod in pods]
            if leases or loop.time() >= ends:
                return leases
            await asyncio.sleep(0.02)

    async def depth(self) -> QueueDepth:
        return await self.queue.depth()

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return await self.queue.dead_letters(limit)

    async def resubmit(self, message_id: str) -> None:
        await self.queue.resubmit(message_id)

    async def discard(self, message_id: str) -> None:
        await self.queue.discard(message_id)


class PodsLease(Lease):
    """A pod's lease whose settling ends the pod."""

    def __init__(self, pod: RunningPod, lease: Lease) -> None:
        self._pod = pod
        self._lease = lease
        self.message_id = lease.message_id
        self.body = lease.body
        self.properties = lease.properties
        self.delivery_count = lease.delivery_count
        self.expires_at = lease.expires_at

    async def renew(self) -> datetime:
        self.expires_at = await self._lease.renew()
        return self.expires_at

    async def complete(self) -> None:
        await self._lease.complete()
        self._pod.exit()

    async def abandon(self, *, delay_seconds: float = 0.0, counted: bool = True) -> None:
        await self._lease.abandon(delay_seconds=delay_seconds, counted=counted)
        self._pod.exit()

    async def dead_letter(self, reason: str, description: str) -> None:
        await self._lease.dead_letter(reason, description)
        self._pod.exit()


def finished(job: Object) -> datetime | None:
    """Return when a Job completed or failed."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in {"Complete", "Failed"}:
            when = datetime.strptime(condition["lastTransitionTime"], "%Y-%m-%dT%H:%M:%SZ")
            return when.replace(tzinfo=UTC)
    return None


def _action(job: Object, exit_code: int, disrupted: bool) -> str:
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if codes and exit_code in codes["values"]:
            return str(rule["action"])
        if disrupted and rule.get("onPodConditions"):
            return str(rule["action"])
    return "Count"


@asynccontextmanager
async def running_cluster(folder: Path, *, kueue: str | None = None) -> AsyncIterator[Cluster]:
    """Start a cluster with the PodTemplate of one pool."""
    server = ApiServer(FakeClock())
    server.add("", "podtemplates", pod_template(kueue=kueue))
    async with serving(server) as clients:
        yield Cluster(clients, server, folder)
