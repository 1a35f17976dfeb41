"""From settings to the Kubernetes adapter; imported when a ``kubernetes://`` URL is opened."""

import re
from collections.abc import Sequence

from lightkube import AsyncClient

from darkroom.clock import Clock
from darkroom.errors import SettingsError
from darkroom.kubernetes_clients import connect
from darkroom.queues.kubernetes_jobs import KubernetesJobQueue
from darkroom.queues.kubernetes_pods import PodIdentity
from darkroom.settings import DarkroomSettings, PodSettings, load

DEFAULT_PREFIX = "darkroom"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def open_queues(
    namespace: str,
    prefix: str,
    pools: Sequence[str],
    settings: DarkroomSettings,
    clock: Clock,
) -> tuple[dict[str, KubernetesJobQueue], list[AsyncClient]]:
    """Return a queue per pool, and the client that they share, to close after them.

    Raises `SettingsError` for names that Kubernetes cannot have, and where no cluster is found.
    """
    prefix = prefix or DEFAULT_PREFIX
    for what, name in (("NAMESPACE", namespace), ("PREFIX", prefix)):
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"DARKROOM_QUEUE_URL: {what} of kubernetes://NAMESPACE/PREFIX must be lower-case"
                " letters, digits and dashes, 63 at most",
                target="DARKROOM_QUEUE_URL",
            )
    client, pod = connect(), _identity()
    queues = {
        pool: KubernetesJobQueue(
            client,
            namespace,
            pool,
            prefix=prefix,
            max_delivery_count=settings.delivery_limit(pool),
            lease_seconds=settings.lease_seconds,
            pod=pod,
            clock=clock,
        )
        for pool in pools
    }
    return queues, [client]


def _identity() -> PodIdentity | None:
    """Return which pod this process is, where the downward API says so; the API's is none."""
    mine = load(PodSettings)
    if not (mine.pod_name and mine.job_name):
        return None
    return PodIdentity(mine.pod_name, mine.job_name, mine.termination_log)
