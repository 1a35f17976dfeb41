"""The chart's Roles allow what the code calls, and nothing else: compared both ways.

The Roles of a rendered scenario decide what a mock API server lets each service account do, and the
product's own code does everything that it can do there. A call that no rule allows is refused, and
the work fails; a rule that no call needed is found at the end. That the work below is all that the
code can do is held by the third test, which reads every call site out of the source.
"""

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from cli.main import main
from tests.charts.helm import ROOT, Object, of_kind, render, scenarios
from tests.kubernetes.api_server import ApiServer, Call, serving
from tests.kubernetes.cluster import Cluster, RunningPod
from tests.samples import make_message
from worker.deletion_cost import DeletionCost

TIERS = ("api", "worker", "webhooks", "doctor")
Right = tuple[str, str, str, str]  # account, group, resource, verb


@dataclass
class Rights:
    """What a release's bindings let its accounts do; ``used`` is what they did."""

    rules: dict[Right, tuple[str | None, tuple[str, ...]]] = field(default_factory=dict)
    used: set[Right] = field(default_factory=set)

    def allow(self, call: Call) -> bool:
        right = (call.account, call.group, call.resource, call.verb)
        namespace, names = self.rules.get(right, ("", ()))
        if right not in self.rules or namespace not in {None, call.namespace}:
            return False
        if names and call.name not in names:
            return False
        self.used.add(right)
        return True


def rights_of(objects: list[Object]) -> Rights:
    """Read Roles and bindings as the API server does; None is every namespace."""
    rights = Rights()
    accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        (role,) = (
            each
            for each in of_kind(objects, kind)
            if each["metadata"]["name"] == name
            and each["metadata"].get("namespace") == binding["metadata"].get("namespace")
        )
        (subject,) = binding["subjects"]
        account = accounts[subject["name"]]
        assert account["metadata"]["namespace"] == subject["namespace"]
        tier = subject["name"].rpartition("-")[2]
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            names = tuple(rule.get("resourceNames", ()))
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        right = (tier, group, resource, verb)
                        rights.rules[right] = (binding["metadata"].get("namespace"), names)
    return rights


@dataclass
class Release:
    """A rendered scenario, installed on a mock of a cluster."""

    objects: list[Object]
    cluster: Cluster
    rights: Rights


@asynccontextmanager
async def installed(scenario: str, folder: Path) -> AsyncIterator[Release]:
    objects = render("darkroom", scenario=scenario)
    server, rights = ApiServer(), rights_of(objects)
    for kind, group, plural in (
        ("PodTemplate", "", "podtemplates"),
        ("ScaledObject", "keda.sh", "scaledobjects"),
        ("LocalQueue", "kueue.x-k8s.io", "localqueues"),
        ("SecretProviderClass", "secrets-store.csi.x-k8s.io", "secretproviderclasses"),
    ):
        for each in of_kind(objects, kind):
            conditions = [{"type": name, "status": "True"} for name in ("Ready", "Active")]
            made = {**each, "status": {"conditions": conditions}} if group else each
            server.add(group, plural, made)
    async with serving(server) as clients:
        cluster = Cluster(clients, server, folder, worker_namespace(objects))
        server.allowed = rights.allow
        yield Release(objects, cluster, rights)


async def pod_of(cluster: Cluster, message_id: str) -> RunningPod:
    """Let Kueue admit the Job, and start its pod."""
    for job in cluster.server.all("batch", "jobs"):
        if job["metadata"]["name"] == message_id:
            job["spec"]["suspend"] = False
            return cluster.start(job)
    raise AssertionError(message_id)


async def dispatch(release: Release, pool: str) -> None:
    """Everything that API and pods do with jobs on Kubernetes-native dispatch."""
    cluster = release.cluster
    queue = cluster.queue(pool)
    messages = [make_message(pool=pool) for _ in range(4)]
    done, dead, canceled, later = messages
    for message in messages[:3]:
        await queue.send(message)
    await queue.send(later, not_before=cluster.now + timedelta(seconds=60))
    pod = await pod_of(cluster, done.job_id)
    lease = await pod.hold()
    await lease.renew()
    await lease.complete()
    pod.exit()
    pod = await pod_of(cluster, dead.job_id)
    await (await pod.hold()).dead_letter("OutOfMemory", "Too large.")
    pod.exit()
    await queue.withdraw(canceled.job_id)
    assert [each.reason for each in await queue.dead_letters()] == ["OutOfMemory"]
    await queue.resubmit(dead.job_id)
    await cluster.advance(3_600)
    await queue.tend()
    assert (await queue.depth()).active == 2


async def keep_cost(release: Release) -> None:
    """What a worker of a Deployment does."""
    namespace = release.cluster.namespace
    meta = {"name": "w-1", "namespace": namespace}
    release.cluster.server.add("", "pods", {"metadata": meta})
    client = release.cluster.clients("worker")
    cost = DeletionCost(client, namespace, "w-1", lambda: True)
    await cost.look(0)


def worker_namespace(objects: list[Object]) -> str:
    names = {
        each["metadata"]["namespace"]
        for each in of_kind(objects, "ServiceAccount")
        if each["metadata"]["name"].endswith("-worker")
    }
    (name,) = names
    return str(name)


async def examine(release: Release, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the doctor with the arguments and the queue of the chart's test pod."""
    (pod,) = of_kind(release.objects, "Pod")
    (container,) = pod["spec"]["containers"]
    environment = {each["name"]: each.get("value", "") for each in container["env"]}
    server = str(release.cluster.clients("doctor").config.cluster.server)
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "doctor"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    catalog, *_ = (
        each for each in of_kind(release.objects, "ConfigMap") if "catalog.yaml" in each["data"]
    )
    (folder / "catalog.yaml").write_text(catalog["data"]["catalog.yaml"])
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    monkeypatch.setenv("DARKROOM_CATALOG", str(folder / "catalog.yaml"))
    queue_url = environment["DARKROOM_QUEUE_URL"]
    is_kubernetes = queue_url.startswith("kubernetes://")
    here = f"sqlite:///{folder}/queue.db"
    monkeypatch.setenv("DARKROOM_QUEUE_URL", queue_url if is_kubernetes else here)
    monkeypatch.setenv("DARKROOM_JOBSTORE_URL", f"sqlite:///{folder}/jobs.db")
    monkeypatch.setenv("DARKROOM_IMAGESTORE_URL", f"file:///{folder}/images")
    words = [*map(str, container["args"]), "--wait", "0", "--json"]  # the last of two counts
    await asyncio.to_thread(run_doctor, words)


def run_doctor(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code, "a check failed"


@pytest.mark.parametrize("scenario", sorted(scenarios("darkroom")))
async def test_every_call_is_allowed_and_every_right_is_used(
    scenario: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with installed(scenario, tmp_path) as release:
        templates = of_kind(release.objects, "PodTemplate")
        for template in templates:
            pool = template["metadata"]["name"].removeprefix("darkroom-")
            await dispatch(release, pool)
        if ("worker", "", "pods", "patch") in release.rights.rules:
            await keep_cost(release)
        await examine(release, tmp_path, monkeypatch)
        refused = [call for call in release.cluster.server.calls if not release.rights.allow(call)]
        assert refused == []
        assert set(release.rights.rules) == release.rights.used
    findings = json.loads(capsys.readouterr().out)["checks"]
    assert [each for each in findings if each["verdict"] == "warn" and each["name"] != "gpu"] == []


@pytest.mark.parametrize("scenario", ["kubernetes-dispatch", "minimal"])
def test_no_account_may_read_secrets_or_change_rights(scenario: str) -> None:
    for _, group, resource, _ in rights_of(render("darkroom", scenario=scenario)).rules:
        assert resource not in {"secrets", "serviceaccounts", "roles", "rolebindings"}
        assert group != "rbac.authorization.k8s.io"


KINDS = {
    "Job": ("batch", "jobs"),
    "job": ("batch", "jobs"),
    "Pod": ("", "pods"),
    "PodTemplate": ("", "podtemplates"),
    "Node": ("", "nodes"),
    "ScaledObject": ("keda.sh", "scaledobjects"),
    "LocalQueue": ("kueue.x-k8s.io", "localqueues"),
    "SecretProviderClass": ("secrets-store.csi.x-k8s.io", "secretproviderclasses"),
}
ACCOUNTS = {
    "darkroom/queues/kubernetes_jobs.py": "api",
    "darkroom/queues/kubernetes_pods.py": "worker",
    "worker/deletion_cost.py": "worker",
    "cli/doctor_cluster.py": "doctor",
}
VERBS = {
    "create",
    "get",
    "list",
    "watch",
    "patch",
    "replace",
    "apply",
    "delete",
    "deletecollection",
}
QUEUE_OF_DOCTOR: set[Right] = {("doctor", "batch", "jobs", "list")}  # it counts, by the API's code


def call_sites(path: Path, account: str) -> Iterator[Right]:
    """Yield the calls of a client that a source file makes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        callee = node.func
        if isinstance(callee, ast.Name) and callee.id == "_listed":
            yield (account, *KINDS[ast.unparse(node.args[1])], "list")
        elif isinstance(callee, ast.Attribute) and callee.attr in VERBS:
            owner = ast.unparse(callee.value)
            if owner.endswith("client") and (kind := ast.unparse(node.args[0])) != "kind":
                yield (account, *KINDS[kind], callee.attr)


def test_the_rights_are_those_of_every_call_site_in_the_source() -> None:
    called = set(QUEUE_OF_DOCTOR)
    for folder in ("api", "cli", "darkroom", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            if "lightkube" in path.read_text() or "kubernetes_clients" in path.read_text():
                account = ACCOUNTS.get(str(path.relative_to(ROOT)), f"nobody, in {path.name}")
                called |= set(call_sites(path, account))
    allowed: set[Right] = set()
    for scenario in scenarios("darkroom"):
        allowed |= set(rights_of(render("darkroom", scenario=scenario)).rules)
    assert called == allowed
