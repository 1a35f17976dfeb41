"""What an API server's refusals become, and how long they are borne."""

import time

import pytest
from lightkube import AsyncClient, KubeConfig
from lightkube.config.models import Cluster as ClusterAddress
from lightkube.config.models import User

from darkroom import kubernetes_clients
from darkroom.errors import QueueUnavailable, SettingsError
from darkroom.queues.kubernetes_jobs import KubernetesJobQueue
from tests.kubernetes.api_server import Call, Refusal
from tests.kubernetes.cluster import Cluster
from tests.samples import make_message


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_clients, "WAITS_SECONDS", (0.01,) * 4)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_an_outage_shorter_than_the_retries_is_not_seen(
    cluster: Cluster, status: int
) -> None:
    cluster.server.refusals = [Refusal(status)] * 4
    assert (await cluster.queue().depth()).active == 0
    assert len(cluster.server.calls) == 5


@pytest.mark.parametrize("status", [429, 503])
async def test_a_longer_one_is_the_queues_and_names_the_status(
    cluster: Cluster, status: int
) -> None:
    cluster.server.refusals = [Refusal(status)] * 5
    with pytest.raises(QueueUnavailable, match=f"listing Jobs: status {status}"):
        await cluster.queue().depth()


async def test_retry_after_is_obeyed(cluster: Cluster) -> None:
    cluster.server.refusals = [Refusal(429, {"Retry-After": "1"})]
    began = time.monotonic()
    await cluster.queue().depth()
    assert time.monotonic() - began >= 1


async def test_a_create_whose_answer_was_lost_makes_one_job(cluster: Cluster) -> None:
    queue = cluster.queue()
    cluster.server.refusals = [Refusal(200, body=cluster_template(cluster))]
    cluster.server.refusals.append(Refusal(504, after_effect=True))
    await queue.send(make_message())
    assert (await queue.depth()).active == 1


def cluster_template(cluster: Cluster) -> dict[str, object]:
    (template,) = cluster.server.all("", "podtemplates")
    return template


async def test_a_missing_right_is_told_at_once_and_by_name(cluster: Cluster) -> None:
    cluster.server.allowed = lambda call: call.verb != "create"
    with pytest.raises(QueueUnavailable, match="creating a Job: status 403, no right"):
        await cluster.queue().send(make_message())
    assert len(cluster.server.calls) == 2


async def test_a_refused_object_names_fields_and_no_values(cluster: Cluster) -> None:
    cause = {"field": "spec.template.spec.containers[0].image", "message": "hush"}
    body = {"message": "hush", "details": {"causes": [cause]}}
    cluster.server.refusals = [Refusal(422, body=body)]
    with pytest.raises(QueueUnavailable) as refused:
        await cluster.queue().depth()
    assert "spec.template.spec.containers[0].image" in refused.value.message
    assert "hush" not in refused.value.message


async def test_a_proxys_page_is_no_crash(cluster: Cluster) -> None:
    html = {"Content-Type": "text/html"}
    cluster.server.refusals = [Refusal(422, html, {"not": "a status"})]
    with pytest.raises(QueueUnavailable, match="status 422"):
        await cluster.queue().depth()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    config = KubeConfig.from_one(
        cluster=ClusterAddress(server="http://127.0.0.1:9", insecure=True), user=User(token="t")
    )
    client = AsyncClient(config.get(), trust_env=False)
    queue = KubernetesJobQueue(
        client, "ns", "short", prefix="darkroom", max_delivery_count=3, lease_seconds=30
    )
    with pytest.raises(QueueUnavailable, match="listing Jobs: ConnectError"):
        await queue.depth()
    await client.close()


async def test_another_replica_that_deleted_it_first_is_no_error(cluster: Cluster) -> None:
    message, queue = make_message(), cluster.queue()
    await queue.send(message)
    (job,) = cluster.server.all("batch", "jobs")

    def be_faster(call: Call) -> bool:
        if call.verb == "delete":
            cluster.server.remove("batch", "jobs", job)
        return True

    cluster.server.allowed = be_faster
    await queue.withdraw(message.job_id)
    assert cluster.server.calls[-1].verb == "delete"


def test_no_cluster_is_a_settings_error(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none")
    with pytest.raises(SettingsError, match="neither a service account's token nor a kubeconfig"):
        kubernetes_clients.connect()
