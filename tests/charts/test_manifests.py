"""k8s/: what belongs to the cluster, and what the charts come to for each environment."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.charts.helm import (
    ROOT,
    Loader,
    Object,
    containers,
    named,
    of_kind,
    pods,
    render,
    scenarios,
)
from tests.charts.restricted import violations
from tests.charts.validation import amount, problems

K8S = ROOT / "k8s"
ENVIRONMENTS = sorted(path.name for path in (K8S / "environments").iterdir())


def load(path: Path) -> list[Object]:
    return [each for each in yaml.load_all(path.read_text(), Loader=Loader) if each]


def prerequisites() -> list[Object]:
    files = sorted((K8S / "prerequisites").glob("*.yaml"))
    return [each for path in files if path.name != "kustomization.yaml" for each in load(path)]


def rendered(environment: str) -> list[Object]:
    files = sorted((K8S / "rendered" / environment).glob("*.yaml"))
    return [each for path in files for each in load(path)]


def test_what_is_committed_is_what_the_charts_make() -> None:
    done = subprocess.run([ROOT / ".ci" / "rendered"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[:3000] + done.stderr


def test_a_drift_is_noticed(tmp_path: Path) -> None:
    for name in ("charts", "k8s", ".ci", ".tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "k8s").unlink()
    (tmp_path / "k8s" / "environments" / "dev").mkdir(parents=True)
    (tmp_path / "k8s" / "rendered" / "dev").mkdir(parents=True)
    name = "darkroom.darkroom.yaml"
    source = K8S / "environments" / "dev" / name
    (tmp_path / "k8s" / "environments" / "dev" / name).write_text(source.read_text())
    before = (K8S / "rendered" / "dev" / "darkroom.yaml").read_text()
    (tmp_path / "k8s" / "rendered" / "dev" / "darkroom.yaml").write_text(
        before.replace("maxUnavailable: 0", "maxUnavailable: 1", 1)
    )
    script = tmp_path / "rendered"
    text = (ROOT / ".ci" / "rendered").read_text().replace('cd "$(dirname "$0")/.."', "")
    script.write_text(text)
    done = subprocess.run(["bash", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "-      maxUnavailable: 1" in done.stdout
    assert ".ci/rendered --write" in done.stderr


def test_an_api_server_takes_the_prerequisites() -> None:
    objects = prerequisites()
    assert len(objects) > 15
    assert not [problem for each in objects for problem in problems(each)]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_api_server_takes_the_platform_of_each_environment(environment: str) -> None:
    ours = [each for each in rendered(environment) if is_ours(each)]
    assert len(ours) > 20
    assert not [problem for each in ours for problem in problems(each)]
    kinds = {each["kind"] for each in rendered(environment)}
    assert "DaemonSet" in kinds, "the observability chart is rendered too"
    assert not [each for each in ours if "helm.sh/hook" in each["metadata"].get("annotations", {})]


def is_ours(each: Object) -> bool:
    return each["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "darkroom"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_namespace_is_made_and_takes_the_pods_that_go_there(environment: str) -> None:
    levels = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in of_kind(prerequisites(), "Namespace")
    }
    for owner, pod in pods(rendered(environment)):
        level = levels[owner["metadata"]["namespace"]]
        assert level in {"restricted", "privileged"}
        assert level == "privileged" or not violations(pod)


def replicas(owner: Object, objects: list[Object]) -> int:
    """The most pods that a Deployment comes to while none is replaced."""
    name = owner["metadata"]["name"]
    for each in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler"):
        spec = each["spec"]
        if spec["scaleTargetRef"]["name"] == name:
            return int(spec.get("maxReplicaCount") or spec["maxReplicas"])
    return int(owner["spec"]["replicas"])


def needs(objects: list[Object]) -> Iterator[tuple[str, Counter[str]]]:
    """What each Deployment takes of its namespace at most."""
    for owner, pod in pods(objects):
        if owner["kind"] != "Deployment":
            continue
        count, taken = replicas(owner, objects), Counter[str]()
        for container in pod["spec"]["containers"]:
            for kind in ("requests", "limits"):
                for name, quantity in container["resources"].get(kind, {}).items():
                    taken[f"{kind}.{name}"] += count * amount(quantity)  # type: ignore[assignment]
        taken["pods"] = count
        yield owner["metadata"]["namespace"], taken


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_quotas_leave_room_for_every_replica(environment: str) -> None:
    quotas = {
        each["metadata"]["namespace"]: each for each in of_kind(prerequisites(), "ResourceQuota")
    }
    taken: dict[str, Counter[str]] = {}
    for namespace, need in needs([each for each in rendered(environment) if is_ours(each)]):
        taken.setdefault(namespace, Counter()).update(need)
    assert set(taken) == set(quotas)
    for namespace, need in taken.items():
        hard = quotas[namespace]["spec"]["hard"]
        over = {name: need[name] for name in hard if need[name] > amount(hard[name])}
        assert not over


def test_no_container_asks_for_more_than_the_limits_allow() -> None:
    most = {
        each["metadata"]["namespace"]: each["spec"]["limits"][0]["max"]
        for each in of_kind(prerequisites(), "LimitRange")
    }
    for owner, pod in pods(rendered("prod")):
        bound = most.get(owner["metadata"]["namespace"], {})
        for container in containers(pod):
            for kind in ("requests", "limits"):
                asked = container["resources"].get(kind, {})
                assert all(
                    amount(asked[name]) <= amount(bound[name]) for name in bound if name in asked
                )


def test_storage_classes_that_scenarios_name_are_made() -> None:
    made = {each["metadata"]["name"] for each in of_kind(prerequisites(), "StorageClass")}
    objects = [each for name in scenarios("darkroom") for each in render("darkroom", scenario=name)]
    named_ones = set()
    for _, pod in pods([*objects, *rendered("prod")]):
        for volume in pod["spec"].get("volumes", []):
            if "ephemeral" in volume:
                claim = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
                named_ones.add(claim["storageClassName"])
    assert named_ones
    assert named_ones <= made


def test_jobs_find_the_queues_of_an_administrator() -> None:
    queues = {
        "short": {"clusterQueue": "darkroom-short"},
        "long": {"clusterQueue": "darkroom-long", "priority": "low"},
    }
    chosen = {
        "dispatch": "kubernetes",
        "kueue": {"createClusterObjects": False},
        "pools": queues,
        "workers": {"namespace": "darkroom-workers"},
    }
    objects = render("darkroom", chosen, scenario="minimal")
    cluster = prerequisites()
    assert not of_kind(objects, "ClusterQueue", "ResourceFlavor", "WorkloadPriorityClass")
    for each in of_kind(objects, "LocalQueue"):
        queue = named(cluster, "ClusterQueue", each["spec"]["clusterQueue"])
        selected = queue["spec"]["namespaceSelector"]["matchLabels"]
        assert selected == {"kubernetes.io/metadata.name": each["metadata"]["namespace"]}
        (group,) = queue["spec"]["resourceGroups"]
        for flavor in group["flavors"]:
            assert named(cluster, "ResourceFlavor", flavor["name"])
    for each in of_kind(objects, "PodTemplate"):
        labels = each["metadata"]["labels"]
        assert named(cluster, "WorkloadPriorityClass", labels["kueue.x-k8s.io/priority-class"])
        assert named(objects, "LocalQueue", labels["kueue.x-k8s.io/queue-name"])
