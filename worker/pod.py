"""What a worker does because it is a pod: leave with its job, and say how dear its end would be."""

from collections.abc import Callable

from darkroom.queues.base import JobQueue
from darkroom.settings import PodSettings
from worker.drain import Drain


async def leave_when_finished(queue: JobQueue, drain: Drain) -> None:
    """Begin ``drain`` once ``queue`` will give this worker nothing more; most queues never do."""
    await queue.finished()
    drain.begin("finished")


async def keep_deletion_cost(pod: PodSettings, is_busy: Callable[[], bool]) -> None:
    """Keep the pod's deletion cost true to ``is_busy`` until cancelled, where that is switched on.

    Raises `SettingsError` where there is no cluster.
    """
    if not pod.deletion_cost:
        return
    # The vendor's packages are imported only where they are asked for.
    from darkroom.kubernetes_clients import connect  # noqa: PLC0415
    from worker.deletion_cost import DeletionCost  # noqa: PLC0415

    client = connect()
    try:
        await DeletionCost(client, pod.pod_namespace, pod.pod_name, is_busy).run()
    finally:
        await client.close()
