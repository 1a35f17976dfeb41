"""The worker's side of Kubernetes-native dispatch: one pod, one message, one exit status.

A pod's lease is its life. Settling writes nothing to the cluster: it chooses the status that the
process must exit with, and the Job controller does the rest. So a worker that dies after it settled
and before it exited has not settled, which the order of effects bears: the record is final by then,
and the next pod only completes.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from lightkube import AsyncClient
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod

from darkroom.clock import Clock
from darkroom.errors import LeaseLost, NotFound, QueueUnavailable
from darkroom.kubernetes_clients import patiently
from darkroom.log import get_logger
from darkroom.queues.base import Lease
from darkroom.queues.kubernetes_manifests import (
    EXIT_COMPLETED,
    EXIT_COUNTED,
    EXIT_DEAD_LETTERED,
    EXIT_UNCOUNTED,
    Content,
    failed_deliveries,
)

LEAVING_SECONDS = 0.05  # longest wait of a lease call once the pod's work is over
MAX_DESCRIPTION_CHARACTERS = 1_000  # the kubelet cuts a termination message at 4 KiB

log = get_logger()


@dataclass(frozen=True)
class PodIdentity:
    """Who this worker is, by the downward API; where its last words go."""

    name: str
    job_name: str
    termination_log: Path


class PodWork:
    """What the pod called ``identity`` was started for."""

    def __init__(
        self,
        client: AsyncClient,
        namespace: str,
        identity: PodIdentity,
        *,
        lease_seconds: float,
        clock: Clock,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.identity = identity
        self.lease_seconds = lease_seconds
        self.clock = clock
        self.exit_status = EXIT_UNCOUNTED  # of a pod that goes before it has settled anything
        self.over = asyncio.Event()
        self._lease: PodLease | None = None

    async def lease(self, max_wait_seconds: float) -> Sequence[Lease]:
        """Return the pod's message the first time; then wait, and return nothing.

        Raises `QueueUnavailable`.
        """
        if self._lease is None:
            return await self._take()
        if self._lease.is_over:
            self.end(EXIT_UNCOUNTED)
        if self.over.is_set():  # a consumer that asks again must not take the loop from who leaves
            await asyncio.sleep(min(max_wait_seconds, LEAVING_SECONDS))
            return []
        try:
            async with asyncio.timeout(max_wait_seconds):
                await self.over.wait()
        except TimeoutError:
            pass
        return []

    def end(self, status: int) -> None:
        """The process has nothing more to do but to exit with ``status``; the first one counts."""
        if not self.over.is_set():
            self.exit_status = status
            self.over.set()

    async def _take(self) -> Sequence[Lease]:
        name = self.identity.job_name
        try:
            job = await patiently(
                "reading the pod's Job",
                lambda: self.client.get(Job, name, namespace=self.namespace),
            )
        except NotFound:  # deleted meanwhile: the pod goes too
            self.end(EXIT_UNCOUNTED)
            return []
        self._lease = PodLease(self, Content.of_job(job), failed_deliveries(job) + 1)
        return [self._lease]


class PodLease(Lease):
    """The message of this pod's Job."""

    def __init__(self, work: PodWork, content: Content, delivery_count: int) -> None:
        self.message_id = content.message_id
        self.body = content.body
        self.properties = content.properties
        self.delivery_count = delivery_count
        self.expires_at = work.clock.now() + timedelta(seconds=work.lease_seconds)
        self._work = work
        self._is_settled = False

    @property
    def is_over(self) -> bool:
        """Whether nobody can do anything with this lease any more."""
        return self._is_settled or self.expires_at <= self._work.clock.now()

    async def renew(self) -> datetime:
        """Extend the hold while the pod is wanted.

        A pod that is being ended keeps its lease for its grace period. An API server that does not
        answer cannot give the job to anyone else either, so its silence extends the hold too; where
        the node is cut off and replaced, the record's fence decides. Raises `LeaseLost`.
        """
        self._check()
        work = self._work
        try:
            pod = await patiently(
                "reading the worker's pod",
                lambda: work.client.get(Pod, work.identity.name, namespace=work.namespace),
            )
        except NotFound:
            raise self._lost("its pod is gone") from None
        except QueueUnavailable as error:
            log.warning("pod_unread", message=error.message)
        else:
            if pod.status is not None and pod.status.phase in {"Failed", "Succeeded"}:
                raise self._lost("its pod has ended")
        self.expires_at = work.clock.now() + timedelta(seconds=work.lease_seconds)
        return self.expires_at

    async def complete(self) -> None:
        """Exit with 0: the Job is done."""
        self._settle(EXIT_COMPLETED)

    async def abandon(self, *, delay_seconds: float = 0.0, counted: bool = True) -> None:
        """Exit with a failure; the Job controller starts another pod after its own back-off."""
        self._settle(EXIT_COUNTED if counted else EXIT_UNCOUNTED)

    async def dead_letter(self, reason: str, description: str) -> None:
        """Exit with the status that fails the Job; reason and description are the last words."""
        self._check()
        said = {"reason": reason, "description": description[:MAX_DESCRIPTION_CHARACTERS]}
        try:
            self._work.identity.termination_log.write_text(json.dumps(said))
        except OSError as error:  # the record has them too
            log.warning("last_words_unwritten", error=type(error).__name__)
        self._settle(EXIT_DEAD_LETTERED)

    def _settle(self, status: int) -> None:
        self._check()
        self._is_settled = True
        self._work.end(status)

    def _check(self) -> None:
        if self.is_over:
            raise LeaseLost("the lease is over")

    def _lost(self, why: str) -> LeaseLost:
        self._is_settled = True
        self._work.end(EXIT_UNCOUNTED)
        return LeaseLost(f"the lease is over: {why}")
