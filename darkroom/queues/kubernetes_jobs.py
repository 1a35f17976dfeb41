"""Kubernetes-native dispatch: each message is a ``batch/v1`` Job, each consumer a pod.

Durability
    ``send`` returns when the API server has stored the Job. All state is in the cluster: any
    replica of the API sees and changes the same, and a restart loses nothing.
Leases
    A pod's lease is its life; see `darkroom.queues.kubernetes_pods`. A consumer therefore holds one
    message and never a second: ``lease`` yields the job that the pod was started for, whatever
    ``max_messages`` says, and after that nothing. `finished` returns when the pod's work is done,
    and ``exit_status`` is what its process must exit with. A lease that runs out does nothing by
    itself: what redelivers is the end of the pod (a crash, an eviction, a liveness probe).
Delays
    The delay of an ``abandon`` is not kept, and "at once" is not to be had: the Job controller
    starts the next pod after its back-off, 10 s after the first failure, doubling up to 6 min.
    ``not_before`` of a ``send`` is kept: the Job is suspended and `tend` lets it go when it is due.
Delivery limit
    ``backoffLimit`` is ``max_delivery_count`` - 1. Disruptions, and pods that gave their message
    back uncounted, are ignored by ``podFailurePolicy``.
Order
    Kueue admits oldest first within a priority; without Kueue the scheduler decides.
Dead letters
    Failed Jobs, for `KEPT_SECONDS`. Completed Jobs are deleted by `tend`.
Duplicates
    A second send of an id is dropped for as long as its Job exists, done or not.

One event loop per queue, the one that uses it first. docs/kubernetes-dispatch.md has the objects
and the rights.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from lightkube import AsyncClient
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod, PodTemplate
from lightkube.types import CascadeType, PatchType

from darkroom.clock import Clock, SystemClock
from darkroom.errors import Conflict, DeadLetterNotFound, NotFound, QueueUnavailable, SettingsError
from darkroom.kubernetes_clients import PAGE, gathered, patiently
from darkroom.messages import Message
from darkroom.queues.base import DeadLetter, JobQueue, Lease, QueueDepth
from darkroom.queues.kubernetes_manifests import (
    JOB_NAME,
    MESSAGE,
    POOL,
    Content,
    dead_letter,
    ended,
    finished_at,
    held_until,
    is_between_pods,
    is_unfinished,
    job_name,
    label_value,
    last_words,
    make_job,
    metadata,
    next_name,
    release,
)
from darkroom.queues.kubernetes_pods import PodIdentity, PodWork

COMPLETED_KEPT_SECONDS = 600.0


class KubernetesJobQueue(JobQueue):
    """The Jobs of one pool. ``pod`` is given where this process is a worker's pod."""

    holds_ahead = False

    def __init__(
        self,
        client: AsyncClient,
        namespace: str,
        pool: str,
        *,
        prefix: str,
        max_delivery_count: int,
        lease_seconds: float,
        pod: PodIdentity | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._pool = pool
        self._template_name = f"{prefix}-{pool}"
        self._max_delivery_count = max_delivery_count
        self._clock = clock or SystemClock()
        self._work: PodWork | None = None
        if pod is not None:
            self._work = PodWork(
                client, namespace, pod, lease_seconds=lease_seconds, clock=self._clock
            )

    async def send(self, message: Message, *, not_before: datetime | None = None) -> None:
        """Create the Job; a Job of that message that exists is left alone."""
        now = self._clock.now()
        content = Content.of_message(message, now)
        due = not_before if not_before is not None and not_before > now else None
        await self._create(job_name(message.message_id), content, due)

    async def lease(self, max_messages: int, max_wait_seconds: float) -> Sequence[Lease]:
        """Return the one message of this pod, once. Raises `SettingsError` outside of a pod."""
        if self._work is None:
            raise SettingsError(
                "a worker on kubernetes:// runs in a pod of a Job: set DARKROOM_WORKER_POD_NAME and"
                " DARKROOM_WORKER_JOB_NAME by the downward API",
                target="DARKROOM_WORKER_JOB_NAME",
            )
        return await self._work.lease(max_wait_seconds)

    @property
    def exit_status(self) -> int:
        """What this pod's process must exit with for the Job controller to do what was settled."""
        return self._work.exit_status if self._work else 0

    async def finished(self) -> None:
        """Return when this pod's message is settled or lost."""
        await (self._work.over if self._work else asyncio.Event()).wait()

    async def depth(self) -> QueueDepth:
        """Count the Jobs: one list call for each `PAGE` of them. In a pod, its own message."""
        if self._work is not None:  # its account may not list, and no other pod can have its job
            return QueueDepth(int(not self._work.over.is_set()), dead_lettered=0, scheduled=0)
        jobs = await self._jobs()
        waiting = [job for job in jobs if is_unfinished(job)]
        later = sum(held_until(job) is not None or is_between_pods(job) for job in waiting)
        dead = sum(ended(job, "Failed") is not None for job in jobs)
        return QueueDepth(active=len(waiting) - later, dead_lettered=dead, scheduled=later)

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return up to ``limit`` failed Jobs, oldest first, with their pods' last words."""
        failed = [job for job in await self._jobs() if ended(job, "Failed") is not None]
        said: dict[str, dict[str, str]] = {}
        if any(ended(job, "Failed") == "PodFailurePolicy" for job in failed):
            said = await self._last_words()
        letters = [dead_letter(job, said.get(metadata(job).name or "", {})) for job in failed]
        return sorted(letters, key=lambda letter: letter.enqueued_at)[:limit]

    async def resubmit(self, message_id: str) -> None:
        """Create another Job of the same message, then delete the failed one.

        Dying in between leaves both; asking again deletes the failed one.
        """
        first = job_name(message_id)
        for job in await self._failed(message_id):
            content = Content.of_job(job)
            content.enqueued_at = self._clock.now()
            await self._create(next_name(metadata(job).name or first, first), content, None)
            await self._delete(job)

    async def discard(self, message_id: str) -> None:
        """Delete a failed Job and its pods."""
        for job in await self._failed(message_id):
            await self._delete(job)

    async def withdraw(self, message_id: str) -> None:
        """Delete the message's unfinished Job: its quota is free at once."""
        for job in await self._jobs(message_id):
            if is_unfinished(job):
                await self._delete(job)

    async def tend(self) -> None:
        """Let go what was held until now, and delete what completed a while ago."""
        now = self._clock.now()
        for job in await self._jobs():
            due = held_until(job)
            if due is not None and due <= now and is_unfinished(job):
                await self._release(job)
            elif ended(job, "Complete") is not None:
                age = now - finished_at(job)
                if age >= timedelta(seconds=COMPLETED_KEPT_SECONDS):
                    await self._delete(job)

    async def close(self) -> None:
        """Leave the client open: it is shared, and closed by who made it."""

    async def _create(self, name: str, content: Content, due: datetime | None) -> None:
        job = make_job(
            name,
            content,
            await self._template(),
            self._pool,
            max_delivery_count=self._max_delivery_count,
            not_before=due,
        )
        try:
            client: Any = self._client  # the library's overloads of `create` leave Job's kind out
            await patiently("creating a Job", lambda: client.create(job, namespace=self._namespace))
        except Conflict:  # it is there: sent before, perhaps by the try whose answer was lost
            return
        except NotFound:
            raise QueueUnavailable(f"there is no namespace {self._namespace}") from None

    async def _template(self) -> PodTemplate:
        name = self._template_name
        try:
            return await patiently(
                "reading the pool's PodTemplate",
                lambda: self._client.get(PodTemplate, name, namespace=self._namespace),
            )
        except NotFound:
            raise QueueUnavailable(
                f"there is no PodTemplate {name} in namespace {self._namespace}: the chart makes"
                " one per pool"
            ) from None

    async def _jobs(self, message_id: str | None = None) -> list[Job]:
        labels: dict[str, Any] = {POOL: label_value(self._pool)}
        if message_id is not None:
            labels[MESSAGE] = job_name(message_id)
        return await patiently(
            "listing Jobs",
            lambda: gathered(
                self._client.list(Job, namespace=self._namespace, labels=labels, chunk_size=PAGE)
            ),
        )

    async def _failed(self, message_id: str) -> list[Job]:
        jobs = await self._jobs(message_id)
        failed = [job for job in jobs if ended(job, "Failed") is not None]
        if not failed:
            raise DeadLetterNotFound(f"no dead letter of message {message_id}")
        return failed

    async def _last_words(self) -> dict[str, dict[str, str]]:
        """Return what the pool's failed pods said at their end, by the name of their Job."""
        labels: dict[str, Any] = {POOL: label_value(self._pool)}
        fields: dict[str, Any] = {"status.phase": "Failed"}
        pods = await patiently(
            "listing failed pods",
            lambda: gathered(
                self._client.list(
                    Pod, namespace=self._namespace, labels=labels, fields=fields, chunk_size=PAGE
                )
            ),
        )
        said = ((metadata(pod).labels or {}, last_words(pod)) for pod in pods)
        return {labels[JOB_NAME]: words for labels, words in said if words and JOB_NAME in labels}

    async def _delete(self, job: Job) -> None:
        name = metadata(job).name or ""
        try:
            await patiently(
                "deleting a Job",
                lambda: self._client.delete(
                    Job, name, namespace=self._namespace, cascade=CascadeType.BACKGROUND
                ),
            )
        except NotFound:  # another replica was faster
            return

    async def _release(self, job: Job) -> None:
        patch, name = release(await self._template()), metadata(job).name or ""
        try:
            await patiently(
                "releasing a Job",
                lambda: self._client.patch(
                    Job, name, patch, namespace=self._namespace, patch_type=PatchType.MERGE
                ),
            )
        except NotFound:  # withdrawn meanwhile
            return
