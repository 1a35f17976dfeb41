"""Tells Kubernetes which worker to take last when it scales in: the one that is busy.

A Deployment that shrinks deletes pods of the lowest ``controller.kubernetes.io/pod-deletion-cost``
first. The cost is a hint and each change a write to the API server, so it is patched on the way
from idle to busy and back alone, and back only after a while of idleness: between two jobs of a
busy worker nothing is written. A pod that never worked has no annotation, which counts as 0.

Source: kubernetes.io/docs/concepts/workloads/controllers/replicaset, "Pod deletion cost".
"""

import asyncio
import time
from collections.abc import Callable

from lightkube import AsyncClient
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType

from darkroom.errors import Conflict, NotFound, QueueUnavailable
from darkroom.kubernetes_clients import patiently
from darkroom.log import get_logger

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
BUSY, IDLE = "1000", "0"

log = get_logger()


class DeletionCost:
    """Keeps the annotation of one pod true to ``is_busy``; a failure is logged and tried again."""

    def __init__(
        self,
        client: AsyncClient,
        namespace: str,
        pod_name: str,
        is_busy: Callable[[], bool],
        *,
        look_seconds: float = 1.0,
        idle_seconds: float = 10.0,
        retry_seconds: float = 30.0,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._pod_name = pod_name
        self._is_busy = is_busy
        self._look_seconds = look_seconds
        self._idle_seconds = idle_seconds
        self._retry_seconds = retry_seconds
        self._written = IDLE
        self._busy_at = -idle_seconds
        self._not_before = 0.0

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            await self.look(time.monotonic())
            await asyncio.sleep(self._look_seconds)

    async def look(self, now: float) -> None:
        """Write the cost if it has changed; ``now`` in seconds of any clock that only moves on."""
        if self._is_busy():
            self._busy_at = now
        cost = BUSY if now - self._busy_at < self._idle_seconds else IDLE
        if cost == self._written or now < self._not_before:
            return
        if await self._write(cost):
            self._written = cost
        else:
            self._not_before = now + self._retry_seconds

    async def _write(self, cost: str) -> bool:
        patch = {"metadata": {"annotations": {ANNOTATION: cost}}}
        try:
            await patiently(
                "patching the worker's pod",
                lambda: self._client.patch(
                    Pod,
                    self._pod_name,
                    patch,
                    namespace=self._namespace,
                    patch_type=PatchType.MERGE,
                ),
            )
        except (NotFound, Conflict, QueueUnavailable) as error:
            log.warning("deletion_cost_unwritten", message=error.message)
            return False
        return True
