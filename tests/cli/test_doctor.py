"""`darkroom doctor` on installations that are well, and on each thing that can be wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.core.exceptions import ClientAuthenticationError

from cli.doctor_azure import identity_is_given, identity_works, queue_is_set_up
from cli.doctor_findings import Verdict
from cli.main import main
from cli.settings import WorkloadIdentitySettings
from darkroom.errors import QueueUnavailable
from darkroom.queues.sqlite import SCHEMA, SqliteJobQueue
from darkroom.settings import DarkroomSettings
from darkroom.sqlite import Database
from tests.azure.emulated import running_bus
from tests.cli.conftest import CATALOG
from tests.kubernetes.api_server import Object
from tests.kubernetes.cluster import NAMESPACE, Cluster, pod_template, running_cluster
from tests.live import Live, live
from tests.samples import make_message
from worker.engines.fake import FakeEngine


@pytest.fixture(autouse=True)
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An embedded installation, by the environment."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    monkeypatch.setenv("DARKROOM_CATALOG", str(tmp_path / "catalog.yaml"))
    monkeypatch.setenv("DARKROOM_QUEUE_URL", f"sqlite:///{tmp_path}/queue.db")
    monkeypatch.setenv("DARKROOM_JOBSTORE_URL", f"sqlite:///{tmp_path}/jobs.db")
    monkeypatch.setenv("DARKROOM_IMAGESTORE_URL", f"file:///{tmp_path}/images")
    return tmp_path


def doctor(*words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the command; return the exit status and the findings by name."""
    out, err = StringIO(), StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main(["doctor", "--json", *words])
    except SystemExit as end:
        status = int(end.code or 0)
    else:
        status = 0
    if not out.getvalue():
        return status, {"stderr": {"detail": err.getvalue()}}
    text = out.getvalue()  # a server of the test's own may have logged into it
    answer, _ = json.JSONDecoder().raw_decode(text[text.index('{\n  "ok"') :])
    assert answer["ok"] == (status == 0)
    return status, {check["name"]: check for check in answer["checks"]}


def verdicts(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: check["verdict"] for name, check in found.items()}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("doctor")) as server:
        yield server


def test_a_healthy_installation_is_all_ok_down_to_a_picture(running: Live) -> None:
    status, found = doctor("--url", running.url)
    assert status == 0
    assert set(verdicts(found).values()) == {"ok"}
    assert set(found) >= {"catalog", "settings", "queue local", "job store", "image store", "job"}


def test_the_doctor_leaves_nothing_behind(installation: Path) -> None:
    assert doctor("--wait", "0")[0] == 0
    assert list((installation / "images").rglob("*.png")) == []


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--url", "http://127.0.0.1:9"])
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert "darkroom up" in " ".join(printed.out.split())
    assert "job store" in printed.out
    assert "cures" in printed.err


def test_an_api_that_nobody_answers_for_names_the_cure() -> None:
    status, found = doctor("--url", "http://127.0.0.1:9")
    assert (status, found["api"]["verdict"]) == (1, "fail")
    assert "darkroom up" in found["api"]["cure"]


def test_a_wait_that_is_too_short_is_a_failure_with_its_cure(installation: Path) -> None:
    with live(installation, FakeEngine(step_seconds=1)) as slow:
        status, found = doctor("--url", slow.url, "--wait", "0.2")
    assert (status, found["job"]["verdict"]) == (1, "fail")
    assert "--wait" in found["job"]["cure"]


@pytest.mark.parametrize(
    ("variable", "value", "check", "named"),
    [
        ("DARKROOM_LEASE_SECONDS", "10", "settings", "renew_seconds"),
        ("DARKROOM_CATALOG", "/nowhere.yaml", "settings", "nowhere"),
        ("DARKROOM_WORKER_GRACE_SECONDS", "5", "settings", "max_gpu_seconds"),
        ("DARKROOM_QUEUE_URL", "amqp://x", "backends", "DARKROOM_QUEUE_URL"),
        ("DARKROOM_QUEUE_URL", "sqlite:////proc/none/queue.db", "queue local", "QueueUnavailable"),
        ("DARKROOM_JOBSTORE_URL", "sqlite:////proc/none/x.db", "job store", "StoreUnavailable"),
        ("DARKROOM_IMAGESTORE_URL", "file:////proc/none", "image store", "StoreUnavailable"),
    ],
)
def test_what_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)
    status, found = doctor("--wait", "0")
    assert (status, found[check]["verdict"]) == (1, "fail")
    assert named in found[check]["detail"]
    assert found[check]["cure"]


def test_memory_backends_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_QUEUE_URL", "memory://")
    status, found = doctor("--wait", "0")
    assert (status, found["settings"]["verdict"]) == (0, "warn")


def test_dead_letters_are_a_warning(installation: Path) -> None:
    async def bury() -> None:
        database = Database(installation / "queue.db", SCHEMA, QueueUnavailable)
        queue = SqliteJobQueue(database, "local", lease_seconds=30, max_delivery_count=1)
        await queue.send(make_message())
        await (await queue.lease(1, 0))[0].abandon()
        await queue.close()

    asyncio.run(bury())
    status, found = doctor("--wait", "0")
    assert (status, found["queue local"]["verdict"]) == (0, "warn")
    assert "dead-letters" in found["queue local"]["cure"]


def test_an_expectation_that_is_none_is_refused() -> None:
    status, found = doctor("--expect", "magic")
    assert status == 2
    assert "keda, kueue, templates, secrets, gpu" in found["stderr"]["detail"]


# The cluster


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """A cluster with what the chart and its operators make, and this process in it."""
    async with running_cluster(tmp_path) as running:
        server = running.server
        server.add("", "podtemplates", pod_template("darkroom-local"))
        server.add("", "nodes", node("gpu-1", {"cpu": "8", "nvidia.com/gpu": "1"}))
        server.add(
            "", "nodes", node("gpu-2", {"nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": "3"})
        )
        server.add("keda.sh", "scaledobjects", custom("local", "Ready"))
        server.add("kueue.x-k8s.io", "localqueues", custom("local", "Active"))
        server.add("secrets-store.csi.x-k8s.io", "secretproviderclasses", custom("vault"))
        config = {
            "clusters": [
                {
                    "name": "c",
                    "cluster": {"server": str(running.clients("x").config.cluster.server)},
                }
            ],
            "users": [{"name": "u", "user": {"token": "doctor"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield running


def node(name: str, allocatable: dict[str, str]) -> Object:
    return {"metadata": {"name": name}, "status": {"allocatable": allocatable}}


def custom(name: str, condition: str | None = None, status: str = "True") -> Object:
    conditions = [{"type": condition, "status": status}] if condition else []
    meta = {"name": name, "namespace": NAMESPACE}
    return {"metadata": meta, "spec": {}, "status": {"conditions": conditions}}


EVERYTHING = [
    word for name in ("keda", "kueue", "templates", "secrets", "gpu") for word in ("--expect", name)
]


async def look(*words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the doctor as a process beside the cluster's, in namespace and with no job."""
    place = ("--namespace", NAMESPACE, "--workers-namespace", NAMESPACE)
    return await asyncio.to_thread(doctor, "--wait", "0", *place, *words)


async def test_a_cluster_that_has_all_is_well(cluster: Cluster) -> None:
    status, found = await look(*EVERYTHING)
    assert status == 0
    assert set(verdicts(found).values()) == {"ok"}
    assert "3 nvidia.com/gpu, 3 nvidia.com/mig-1g.10gb on 2 nodes" in found["gpu"]["detail"]


async def test_the_queue_decides_what_a_cluster_should_have(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set((await look("--cluster"))[1]) >= {"keda", "gpu"}
    monkeypatch.setenv("DARKROOM_QUEUE_URL", f"kubernetes://{NAMESPACE}")
    status, found = await look("--cluster")
    assert status == 0
    assert set(found) >= {"template local", "gpu", "queue local"}
    assert "keda" not in found


@pytest.mark.parametrize(
    ("kind", "expectation"),
    [
        (("keda.sh", "scaledobjects"), "keda"),
        (("kueue.x-k8s.io", "localqueues"), "kueue"),
        (("secrets-store.csi.x-k8s.io", "secretproviderclasses"), "secrets"),
    ],
)
async def test_crds_that_are_missing_fail_with_what_to_install(
    cluster: Cluster, kind: tuple[str, str], expectation: str
) -> None:
    cluster.server.kinds.remove(kind)
    status, found = await look(*EVERYTHING)
    assert (status, found[expectation]["verdict"]) == (1, "fail")
    assert found[expectation]["cure"].startswith(("install", "enable"))


async def test_objects_that_are_not_ready_are_named(cluster: Cluster) -> None:
    cluster.server.add("keda.sh", "scaledobjects", custom("slow", "Ready", "False"))
    status, found = await look("--expect", "keda")
    assert (status, found["keda"]["verdict"]) == (1, "fail")
    assert found["keda"]["cure"] == "kubectl describe scaledobject slow"


async def test_no_object_at_all_is_a_failure(cluster: Cluster) -> None:
    for kind in (
        ("kueue.x-k8s.io", "localqueues"),
        ("secrets-store.csi.x-k8s.io", "secretproviderclasses"),
    ):
        for thing in cluster.server.all(*kind):
            cluster.server.remove(*kind, thing)
    status, found = await look("--expect", "kueue", "--expect", "secrets")
    assert status == 1
    assert {found[name]["verdict"] for name in ("kueue", "secrets")} == {"fail"}


async def test_what_may_not_be_seen_is_a_warning(cluster: Cluster) -> None:
    cluster.server.allowed = lambda call: False
    status, found = await look(*EVERYTHING)
    assert status == 0
    names = ("keda", "kueue", "templates", "secrets", "gpu")
    assert {found[name]["verdict"] for name in names} == {"warn"}


async def test_nodes_without_gpus_are_a_warning_and_a_dead_driver_a_failure(
    cluster: Cluster,
) -> None:
    for each in list(cluster.server.all("", "nodes")):
        each["status"]["allocatable"] = {"cpu": "8"}
    assert (await look("--expect", "gpu"))[1]["gpu"]["verdict"] == "warn"
    cluster.server.add("", "nodes", node("dead", {"nvidia.com/gpu": "0"}))
    assert (await look("--expect", "gpu"))[1]["gpu"]["verdict"] == "fail"


async def test_a_template_must_be_there_and_have_the_worker(cluster: Cluster) -> None:
    (_, template) = cluster.server.all("", "podtemplates")
    template["template"]["spec"]["containers"][0]["name"] = "main"
    status, found = await look("--expect", "templates")
    assert (status, found["template local"]["verdict"]) == (1, "fail")
    cluster.server.remove("", "podtemplates", template)
    status, found = await look("--expect", "templates")
    assert "darkroom-local" in found["template local"]["cure"]


def test_no_cluster_to_look_at_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    status, found = doctor("--wait", "0", "--cluster")
    assert (status, found["cluster"]["verdict"]) == (1, "fail")


# Azure


class Entra:
    """What the SDK's credential is to its callers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def get_token(self, *scopes: str) -> Any:
        if self.error is not None:
            raise self.error
        return datetime.now(UTC)


def workload_identity(token: Path | None) -> WorkloadIdentitySettings:
    return WorkloadIdentitySettings(client_id="c", tenant_id="t", federated_token_file=token)


def test_a_pod_without_workload_id_is_told_which_variables_it_lacks(tmp_path: Path) -> None:
    (found,) = identity_is_given(WorkloadIdentitySettings(), in_cluster=True)
    assert found.verdict is Verdict.FAIL
    assert "AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE" in found.detail
    (found,) = identity_is_given(WorkloadIdentitySettings(), in_cluster=False)
    assert found.verdict is Verdict.OK
    (found,) = identity_is_given(workload_identity(tmp_path / "token"), in_cluster=True)
    assert found.verdict is Verdict.FAIL
    (tmp_path / "token").write_text("x")
    (found,) = identity_is_given(workload_identity(tmp_path / "token"), in_cluster=True)
    assert found.verdict is Verdict.OK


async def test_an_identity_without_a_federated_credential_is_told_so() -> None:
    (found,) = await identity_works(Entra(), "c")
    assert found.verdict is Verdict.OK
    (found,) = await identity_works(Entra(ClientAuthenticationError("AADSTS700213 hush")), "c-1")
    assert found.verdict is Verdict.FAIL
    assert "federated credential" in found.cure
    assert "c-1" in found.cure
    assert "hush" not in found.detail + found.cure


@pytest.mark.parametrize(
    ("properties", "wrong"),
    [
        ({}, None),
        ({"max_delivery_count": 10}, "MaxDeliveryCount is 10, must be 6"),
        ({"lock_duration_ms": 30_000}, "LockDuration is 30 s, must be 60 s"),
        ({"lock_duration_ms": 120_000}, "LockDuration is 120 s, must be 60 s"),
    ],
)
async def test_a_queue_must_be_as_the_invariants_say(
    properties: dict[str, int], wrong: str | None
) -> None:
    asked = {"max_delivery_count": 6, "lock_duration_ms": 60_000, **properties}
    async with running_bus(**asked) as bus:
        queue = bus.open_queue()
        (found,) = await queue_is_set_up(queue._admin, "short", DarkroomSettings())
        (missing,) = await queue_is_set_up(queue._admin, "none", DarkroomSettings())
        await queue.close()
    assert found.verdict is (Verdict.OK if wrong is None else Verdict.FAIL)
    assert wrong is None or wrong in found.detail
    assert (missing.verdict, missing.detail) == (Verdict.FAIL, "there is no such queue")


async def test_the_whole_doctor_runs_on_an_emulated_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_bus(max_delivery_count=6, lock_duration_ms=60_000) as bus:
        assert bus.emulator is not None
        endpoints = bus.emulator.endpoints
        monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", endpoints.connection_string)
        monkeypatch.setenv("SERVICEBUS_ADMIN_CONNECTION_STRING", endpoints.admin_connection_string)
        monkeypatch.setenv("DARKROOM_QUEUE_URL", "servicebus://acme.servicebus.windows.net")
        status, found = await asyncio.to_thread(doctor, "--wait", "0")
    assert found["entity local"]["detail"] == "there is no such queue"
    assert status == 1
