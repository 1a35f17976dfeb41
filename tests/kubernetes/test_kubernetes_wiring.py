"""A ``kubernetes://`` URL opens queues that work, for the API and in a worker's pod."""

from pathlib import Path

import pytest
import yaml

from darkroom.errors import SettingsError
from darkroom.queues.base import JobQueue
from darkroom.settings import DarkroomSettings
from darkroom.wiring import Backends, open_backends
from tests.contracts.test_azure_wiring import CATALOG, EMBEDDED
from tests.kubernetes.cluster import NAMESPACE, Cluster
from tests.samples import make_message


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Point this process at the cluster, as a developer's kubectl is."""
    server = str(cluster.clients("api").config.cluster.server)
    file = tmp_path / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "api"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(file))
    return cluster


def open_with(url: str) -> Backends:
    settings = {**EMBEDDED, "queue_url": url, "max_delivery_count": 4}
    return open_backends(DarkroomSettings.model_validate(settings), CATALOG)


async def test_the_api_sends_and_a_pod_works(
    kubeconfig: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backends = open_with(f"kubernetes://{NAMESPACE}")
    await backends.queues["short"].send(make_message())
    assert backends.webhooks is None, "no Job sends a webhook"
    (job,) = kubeconfig.startable()
    assert job["spec"]["backoffLimit"] == 4, "the spare delivery runs nothing"
    pod = kubeconfig.start(job)
    monkeypatch.setenv("DARKROOM_WORKER_POD_NAME", pod.pod["metadata"]["name"])
    monkeypatch.setenv("DARKROOM_WORKER_JOB_NAME", job["metadata"]["name"])
    monkeypatch.setenv("DARKROOM_WORKER_TERMINATION_LOG", str(tmp_path / "log"))
    worker = open_with(f"kubernetes://{NAMESPACE}/darkroom")
    queue: JobQueue = worker.queues["short"]
    (lease,) = await queue.lease(1, 0)
    await lease.renew()
    await lease.complete()
    assert queue.exit_status == 0
    await worker.close()
    await backends.close()


@pytest.mark.parametrize(
    "url", ["kubernetes://", "kubernetes://Upper", "kubernetes://ns/a/b", "kubernetes://ns/a_b"]
)
def test_a_url_without_names_that_kubernetes_takes_is_refused(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_with(url)
    assert refused.value.target == "DARKROOM_QUEUE_URL"
