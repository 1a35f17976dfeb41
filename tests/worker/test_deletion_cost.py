"""Busy workers are the last to be scaled in, and the API server hears of changes alone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kubernetes.cluster import NAMESPACE, Cluster, running_cluster
from tests.worker.site import eventually
from worker.deletion_cost import ANNOTATION, DeletionCost


@dataclass
class Pod:
    """A pod with a cost, and whether its worker is busy."""

    cluster: Cluster
    cost: DeletionCost
    busy: bool = False

    @property
    def annotation(self) -> str | None:
        (pod,) = self.cluster.server.all("", "pods")
        value: str | None = pod["metadata"].get("annotations", {}).get(ANNOTATION)
        return value

    @property
    def writes(self) -> int:
        return sum(call.verb == "patch" for call in self.cluster.server.calls)


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    async with running_cluster(tmp_path) as cluster:
        cluster.server.add("", "pods", {"metadata": {"name": "w-1", "namespace": NAMESPACE}})
        made: list[Pod] = []
        cost = DeletionCost(
            cluster.clients("worker"), NAMESPACE, "w-1", lambda: made[0].busy, look_seconds=0.01
        )
        made.append(Pod(cluster, cost))
        yield made[0]


async def test_an_idle_worker_writes_nothing(pod: Pod) -> None:
    for second in range(100):
        await pod.cost.look(second)
    assert (pod.annotation, pod.writes) == (None, 0)


async def test_a_busy_worker_costs_more_until_it_has_been_idle_for_a_while(pod: Pod) -> None:
    pod.busy = True
    await pod.cost.look(0)
    assert pod.annotation == "1000"
    pod.busy = False
    await pod.cost.look(9)
    assert pod.annotation == "1000"
    await pod.cost.look(11)
    assert (pod.annotation, pod.writes) == ("0", 2)


async def test_a_row_of_jobs_with_breaks_is_one_write(pod: Pod) -> None:
    for second in range(300):
        pod.busy = second % 8 < 4
        await pod.cost.look(second)
    assert (pod.annotation, pod.writes) == ("1000", 1)


async def test_a_refusal_is_borne_and_tried_again_later(pod: Pod) -> None:
    pod.busy = True
    pod.cluster.server.allowed = lambda call: False
    for second in range(30):
        await pod.cost.look(second)
    assert (pod.annotation, pod.writes) == (None, 1)
    pod.cluster.server.allowed = lambda call: True
    await pod.cost.look(31)
    assert pod.annotation == "1000"


async def test_a_pod_that_is_gone_stops_nothing(pod: Pod) -> None:
    (gone,) = pod.cluster.server.all("", "pods")
    pod.cluster.server.remove("", "pods", gone)
    pod.busy = True
    await pod.cost.look(0)


async def test_it_follows_the_worker_by_itself(pod: Pod) -> None:
    watching = asyncio.create_task(pod.cost.run())
    pod.busy = True

    async def is_dear() -> bool:
        return pod.annotation == "1000"

    await eventually(is_dear)
    watching.cancel()
