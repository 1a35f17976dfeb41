"""Releases that schemas allow, and that a real control plane would have refused or left waiting."""

from typing import Any

import pytest

from tests.charts.admission import refusals
from tests.charts.helm import ROOT, Object, named, of_kind, pods, render, scenarios
from tests.charts.test_manifests import prerequisites
from tests.charts.validation import problems, scope

CHARTS = [
    *(("darkroom", name) for name in scenarios("darkroom")),
    *(("gpu-observability", name) for name in scenarios("gpu-observability")),
]


@pytest.mark.parametrize(("chart", "scenario"), CHARTS)
def test_no_scenario_is_refused_by_a_control_plane(chart: str, scenario: str) -> None:
    objects = render(chart, scenario=scenario)
    assert objects
    assert not [problem for each in objects for problem in problems(each, ("1.37",))]


@pytest.mark.parametrize(
    ("chart", "scenario"),
    [
        ("darkroom", "keyvault"),
        ("darkroom", "kubernetes-dispatch"),
        ("gpu-observability", "operator"),
    ],
)
@pytest.mark.parametrize("release", ["2nd.try", "r" * 53])
def test_every_name_that_helm_takes_for_a_release_can_be_installed(
    chart: str, scenario: str, release: str
) -> None:
    objects = render(chart, scenario=scenario, release=release, namespace="system-gpu")
    assert not [problem for each in objects for problem in problems(each, ("1.37",))]


def test_keda_takes_the_fallback_with_and_without_the_second_trigger() -> None:
    for enabled in (True, False):
        values = {"keda": {"prometheus": {"enabled": enabled}}}
        for each in of_kind(render("darkroom", values, scenario="minimal"), "ScaledObject"):
            kinds = [one.get("metricType") for one in each["spec"]["triggers"]]
            assert "fallback" in each["spec"]
            assert kinds == ["AverageValue"] * (2 if enabled else 1)


def test_a_node_that_takes_none_of_the_pods_is_none_to_spread_over() -> None:
    objects = render("darkroom", {"api": {"spread": "DoNotSchedule"}}, scenario="minimal")
    api = named(objects, "Deployment", "darkroom-api")
    spread = api["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [one["whenUnsatisfiable"] for one in spread] == ["DoNotSchedule"] * 2
    assert [one["nodeTaintsPolicy"] for one in spread] == ["Honor"] * 2


def asked(container: Object) -> set[str]:
    """Return what Kueue counts for a container: its requests, and its limits without a request."""
    return {
        what for kind in ("requests", "limits") for what in container["resources"].get(kind, {})
    }


def test_a_quota_covers_whatever_a_pod_may_take() -> None:
    """Kueue leaves a Job waiting for ever that asks for a resource which no quota names."""
    resources = {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"memory": "4Gi", "ephemeral-storage": "20Gi"},
    }
    pull = {"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}}
    cache = {"type": "emptyDir", "pull": {"resources": pull}}
    values = {"workers": {"resources": resources, "modelCache": cache}}
    objects = render("darkroom", values, scenario="kubernetes-dispatch")
    for each in of_kind(objects, "PodTemplate"):
        ((_, pod),) = pods([each])
        spec = pod["spec"]
        needed = {
            what for one in [*spec["containers"], *spec["initContainers"]] for what in asked(one)
        }
        pool = each["metadata"]["name"].removeprefix("darkroom-")
        queue = named(objects, "ClusterQueue", f"darkroom-darkroom-{pool}")
        (group,) = queue["spec"]["resourceGroups"]
        assert needed == set(group["coveredResources"])
        assert "ephemeral-storage" in needed


def test_what_users_say_goes_over_what_the_chart_says_once() -> None:
    team = {"team": "imaging"}
    values = {
        "commonLabels": {**team, "cost": "1"},
        "workers": {"podLabels": {"team": "gpu"}},
        "ingress": {"annotations": {"appgw.ingress.kubernetes.io/request-timeout": "600"}},
    }
    objects = render("darkroom", values, scenario="agic")  # the loader takes no key twice
    (ingress,) = of_kind(objects, "Ingress")
    assert (
        ingress["metadata"]["annotations"]["appgw.ingress.kubernetes.io/request-timeout"] == "600"
    )
    worker = named(objects, "Deployment", "darkroom-worker-short")
    labels = worker["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["cost"]) == ("gpu", "1")
    values = {"commonLabels": team, "dashboards": {"labels": {"team": "boards"}}}
    for each in of_kind(render("gpu-observability", values, scenario="default"), "ConfigMap"):
        assert each["metadata"]["labels"]["team"] in {"boards", "imaging"}


def test_a_start_is_waited_for_whatever_its_times_are() -> None:
    slow = {"workers": {"startupSeconds": 60, "probes": {"startup": {"periodSeconds": 300}}}}
    objects = render("darkroom", slow, scenario="minimal")
    assert not [problem for each in objects for problem in problems(each, ("1.37",))]


@pytest.mark.parametrize("scenario", scenarios("darkroom"))
def test_who_may_not_touch_the_whole_cluster_can_install_it(scenario: str) -> None:
    page = (ROOT / "docs" / "chart.md").read_text()
    told = {each["kind"] for each in cluster_wide(render("darkroom", scenario=scenario))}
    assert all(kind in page for kind in told)
    values = {
        "priorityClasses": {"create": False},
        "tests": {"rbac": False},
        "kueue": {"createClusterObjects": False},
        "pools": {"short": {"modelCache": {"type": "emptyDir"}}} if scenario == "blob-csi" else {},
    }
    assert cluster_wide(render("darkroom", values, scenario=scenario)) == []


def cluster_wide(objects: list[Object]) -> list[Object]:
    return [each for each in objects if scope(each) == "Cluster"]


def test_no_limit_range_throttles_by_a_most_of_cpu() -> None:
    for each in of_kind(prerequisites(), "LimitRange"):
        for one in each["spec"]["limits"]:
            assert "cpu" not in {**one.get("max", {}), **one.get("default", {})}


POD: Object = {"containers": [{"name": "c"}]}


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("Service", "2nd", {}),
        ("PriorityClass", "system-mine", {}),
        ("PodDisruptionBudget", "b", {"spec": {"minAvailable": 1, "maxUnavailable": 1}}),
        ("HorizontalPodAutoscaler", "h", {"spec": {"minReplicas": 3, "maxReplicas": 2}}),
        ("NetworkPolicy", "n", {"spec": {"ingress": [{"from": [{}]}]}}),
        ("Pod", "p", {"spec": {"containers": [{"name": "c", "volumeMounts": [{"name": "v"}]}]}}),
        ("Pod", "p", {"spec": {**POD, "tolerations": [{"operator": "Exists", "value": "x"}]}}),
        ("Pod", "p", {"spec": {"containers": [{"name": "c", "livenessProbe": {}}]}}),
        ("Pod", "p", {"spec": {"containers": [{"name": "c", "ports": [{"name": "a" * 16}]}]}}),
    ],
)
def test_what_is_refused_is_seen(kind: str, name: str, content: dict[str, Any]) -> None:
    assert refusals({"kind": kind, "metadata": {"name": name}, **content})
