"""Every scenario of the chart: what comes out is what a cluster takes."""

import json
import re
from typing import Any

import pytest
import yaml

from darkroom.catalog import load_catalog
from tests.charts.helm import (
    CHARTS,
    Loader,
    Object,
    Refused,
    containers,
    named,
    of_kind,
    pods,
    render,
    run,
    scenarios,
)
from tests.charts.restricted import violations
from tests.charts.validation import problems, scope

NAMES = sorted(scenarios("darkroom"))
LONG = "a-release-name-that-is-as-long-as-helm-lets-it-be-53c"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

scenario = pytest.mark.parametrize("name", NAMES)


def test_there_is_a_scenario_for_each_situation() -> None:
    assert set(NAMES) == {
        "agic", "blob-csi", "gateway", "keda-test", "keyvault", "kubernetes-dispatch", "minimal",
        "network-locked", "scaledjob", "spot-mig", "test-cluster",
    }  # fmt: skip


def test_helm_lints_the_chart_with_its_defaults() -> None:
    assert "0 chart(s) failed" in run("lint", "--strict", CHARTS / "darkroom")


@scenario
def test_helm_lints_each_scenario(name: str) -> None:
    run("lint", "--strict", CHARTS / "darkroom", "-f", scenarios("darkroom")[name])


@scenario
def test_an_api_server_takes_every_object(name: str) -> None:
    objects = render("darkroom", scenario=name)
    assert objects
    assert not [problem for each in objects for problem in problems(each)]


def test_a_field_that_no_schema_knows_is_noticed() -> None:
    (service,) = of_kind(render("darkroom", scenario="minimal"), "Service")
    service["spec"]["ports"][0]["portt"] = 1
    assert len(problems(service)) == 3, "one for each version"
    scaled = of_kind(render("darkroom", scenario="minimal"), "ScaledObject")[0]
    scaled["spec"]["triggers"][0]["metadta"] = {}
    assert problems(scaled)


@scenario
def test_names_are_unique_and_fit_even_with_long_release_names(name: str) -> None:
    objects = render("darkroom", scenario=name, release=LONG, namespace="n" * 40)
    seen = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects
    ]
    assert len(set(seen)) == len(seen)
    wrong = [each[2] for each in seen if len(each[2]) > 63 or not NAME.fullmatch(each[2])]
    assert not wrong


@scenario
def test_what_is_namespaced_says_where_and_what_is_not_does_not(name: str) -> None:
    for each in render("darkroom", scenario=name):
        assert ("namespace" in each["metadata"]) == (scope(each) == "Namespaced"), each["kind"]


@scenario
def test_label_values_fit(name: str) -> None:
    objects = render("darkroom", scenario=name, release=LONG)
    maps = [each["metadata"].get("labels", {}) for each in objects]
    maps += [pod["metadata"].get("labels", {}) for _, pod in pods(objects)]
    assert maps
    values = {value for labels in maps for value in labels.values()}
    assert not {value for value in values if len(value) > 63}


@scenario
def test_pod_security_restricted_takes_every_pod(name: str) -> None:
    found = list(pods(render("darkroom", scenario=name)))
    assert found
    assert not {
        owner["metadata"]["name"]: violations(pod) for owner, pod in found if violations(pod)
    }


def test_a_pod_that_is_not_restricted_is_noticed() -> None:
    _, pod = next(iter(pods(render("darkroom", scenario="minimal"))))
    for spoil in (
        lambda spec: spec.update(hostNetwork=True),
        lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
        lambda spec: spec["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
    ):
        copy = json.loads(json.dumps(pod))
        spoil(copy["spec"])
        assert violations(copy)


@scenario
def test_no_container_can_write_to_its_root(name: str) -> None:
    for _, pod in pods(render("darkroom", scenario=name)):
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


@scenario
def test_mounts_volumes_accounts_and_objects_that_pods_name_are_there(name: str) -> None:
    objects = render("darkroom", scenario=name)
    there = {
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects
    }
    for owner, pod in pods(objects):
        namespace = owner["metadata"]["namespace"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert len(volumes) == len(pod["spec"]["volumes"])
        for container in containers(pod):
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(set(paths)) == len(paths)
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
        assert ("ServiceAccount", namespace, pod["spec"]["serviceAccountName"]) in there
        needed = [("ConfigMap", volumes["catalog"]["configMap"]["name"])]
        if "csi" in volumes.get("secrets", {}):
            needed.append(
                (
                    "SecretProviderClass",
                    volumes["secrets"]["csi"]["volumeAttributes"]["secretProviderClass"],
                )
            )
        if "priorityClassName" in pod["spec"]:
            assert ("PriorityClass", None, pod["spec"]["priorityClassName"]) in there
        assert {(kind, namespace, what) for kind, what in needed} <= there


@scenario
def test_services_and_budgets_and_scalers_find_what_they_are_for(name: str) -> None:
    objects = render("darkroom", scenario=name)
    deployments = of_kind(objects, "Deployment")
    for each in deployments:
        wanted = each["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    for each in of_kind(objects, "Service", "PodDisruptionBudget"):
        selector = each["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        fitting = [
            other["metadata"]["name"]
            for other in deployments
            if wanted.items() <= other["spec"]["template"]["metadata"]["labels"].items()
            and other["metadata"]["namespace"] == each["metadata"]["namespace"]
        ]
        assert len(fitting) == 1, (each["metadata"]["name"], fitting)
    for each in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler"):
        target = each["spec"]["scaleTargetRef"]
        found = named(objects, target["kind"], target["name"])
        assert found["metadata"]["namespace"] == each["metadata"]["namespace"]
        assert "replicas" not in found["spec"], "the autoscaler's number must not be reset"


@scenario
def test_probes_ask_ports_that_are_open_for_paths_that_are_served(name: str) -> None:
    served = {
        "api": {"/livez", "/readyz"},
        "worker": {"/livez", "/readyz"},
        "webhooks": {"/metrics"},
    }
    for _, pod in pods(render("darkroom", scenario=name)):
        for container in pod["spec"]["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            for kind in ("startup", "readiness", "liveness"):
                probe = container.get(f"{kind}Probe")
                if probe is not None:
                    assert probe["httpGet"]["port"] in ports
                    assert probe["httpGet"]["path"] in served[container["name"]]


@scenario
def test_no_role_says_everything_and_nobody_is_an_administrator(name: str) -> None:
    objects = render("darkroom", scenario=name)
    roles = of_kind(objects, "Role", "ClusterRole")
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
    ours = {(role["kind"], role["metadata"]["name"]) for role in roles}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in ours
        for subject in binding["subjects"]:
            account = named(objects, "ServiceAccount", subject["name"])
            assert account["metadata"]["namespace"] == subject["namespace"]


@scenario
def test_only_pods_with_rights_get_a_token(name: str) -> None:
    objects = render("darkroom", scenario=name)
    bound = {
        (subject["namespace"], subject["name"])
        for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
    }
    for owner, pod in pods(objects):
        account = owner["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        assert pod["spec"]["automountServiceAccountToken"] == (account in bound)


@scenario
def test_both_tiers_read_the_very_catalog_of_the_values(name: str, tmp_path: Any) -> None:
    objects = render("darkroom", scenario=name)
    texts = {each["data"]["catalog.yaml"] for each in of_kind(objects, "ConfigMap")}
    (text,) = texts
    (tmp_path / "catalog.yaml").write_text(text)
    catalog = load_catalog(tmp_path / "catalog.yaml")
    pools = [
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in objects
        if each["metadata"]["labels"].get("darkroom/tier") == "worker"
    ] + [
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in of_kind(objects, "ScaledJob")
    ]
    assert sorted(pools) == sorted(f"worker-{pool.name}" for pool in catalog.pools)


def test_an_uninstalled_minimum_says_all_that_is_missing_at_once() -> None:
    with pytest.raises(Refused) as refused:
        render("darkroom")
    for value in (
        "azure.serviceBus.namespace", "azure.storage.account", "identity.clientIds.api",
        "identity.clientIds.worker", "identity.clientIds.keda", "auth.entra.issuers",
        "auth.entra.audiences", "keda.prometheus.serverAddress",
    ):  # fmt: skip
        assert f"- {value}" in str(refused.value)


def test_a_digest_is_preferred_to_a_tag() -> None:
    digest = "sha256:" + "a" * 64
    image = {"api": {"tag": "1.2", "digest": digest}, "worker": {"tag": "1.2"}, "registry": "r.io"}
    objects = render("darkroom", {"image": image}, scenario="minimal")
    images = {each["image"] for _, pod in pods(objects) for each in containers(pod)}
    assert images == {f"r.io/darkroom-api@{digest}", "r.io/darkroom-worker:1.2"}


def notes(name: str) -> str:
    values = scenarios("darkroom")[name]
    return run("install", "darkroom", CHARTS / "darkroom", "-n", "darkroom", "-f", values,
               "--dry-run=client", "--no-hooks")  # fmt: skip


@pytest.mark.parametrize("name", ["agic", "test-cluster"])
def test_the_notes_tell_the_next_command(name: str) -> None:
    text = notes(name).split("NOTES:")[1]
    assert "kubectl -n darkroom rollout status deployment/darkroom-api" in text
    assert "helm test darkroom -n darkroom --logs" in text
    assert "darkroom submit" in text
    if name == "agic":
        assert "--url https://darkroom.example.com" in text
        assert "system:serviceaccount:darkroom-workers:darkroom-worker" in text
        assert "MaxDeliveryCount 6" in text
        assert "max-graceful-termination-sec" in text


def test_a_shared_volume_outlives_the_release() -> None:
    (claim,) = of_kind(render("darkroom", scenario="test-cluster"), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def component(objects: list[Object], name: str) -> Object:
    (found,) = (
        each
        for each in of_kind(objects, "Deployment")
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == name
    )
    return found


def test_a_change_of_one_pool_replaces_no_worker_of_another() -> None:
    before = render("darkroom", scenario="minimal")
    pools = [
        {"name": "short", "models": ["sd15"], "max_gpu_seconds": 90, "gpu": "T4",
         "replicas": {"min": 0, "max": 4}, "price_per_hour_usd": 0.53},
        {"name": "long", "models": ["sd15"], "max_gpu_seconds": 600, "gpu": "T4",
         "replicas": {"min": 1, "max": 7}, "price_per_hour_usd": 0.53},
    ]  # fmt: skip
    after = render("darkroom", {"catalog": {"pools": pools}}, scenario="minimal")
    same = {
        name: component(before, name)["spec"]["template"]
        == component(after, name)["spec"]["template"]
        for name in ("api", "worker-short", "worker-long")
    }
    assert same == {"api": False, "worker-short": False, "worker-long": True}


def test_a_key_that_stands_twice_is_noticed() -> None:
    with pytest.raises(ValueError, match="b twice"):
        yaml.load("a: {b: 1, b: 2}", Loader=Loader)
