"""What the chart renders is accepted where it is installed, and is what operators were promised."""

import json
import re
from typing import Any

import pytest
import yaml

from tests.charts import helm, validation
from tests.charts.helm import Object
from tests.charts.observability.rendering import (
    CHART,
    NAMESPACE,
    RELEASE,
    SCENARIOS,
    only,
    scenario,
)

NEEDED = {
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_RESERVED",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
}


def pod_spec(objects: list[Object], name_end: str) -> dict[str, Any]:
    spec: dict[str, Any] = only(objects, "DaemonSet", name_end)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", SCENARIOS)
def test_helm_lints_every_scenario_strictly(name: str) -> None:
    told = helm.run("lint", "--strict", CHART, "-f", helm.scenarios(CHART.name)[name])
    assert "0 chart(s) failed" in told


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_object_is_valid_for_three_minors_and_the_custom_resources(name: str) -> None:
    for one in scenario(name):
        assert validation.problems(one) == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_names_fit_and_every_object_says_whose_it_is(name: str) -> None:
    objects = scenario(name)
    for one in objects:
        meta = one["metadata"]
        assert len(meta["name"]) <= 63
        assert meta["namespace"] == NAMESPACE
        assert meta["labels"]["app.kubernetes.io/part-of"] == "darkroom"
    named = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(named)) == len(named)
    assert not {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"} & {k for k, _ in named}


def test_the_exporter_runs_on_gpu_nodes_whatever_their_taints() -> None:
    spec = pod_spec(scenario("default"), "-exporter")
    assert spec["nodeSelector"] == {"kubernetes.azure.com/accelerator": "nvidia"}
    tolerated = {(one["key"], one.get("value"), one["effect"]) for one in spec["tolerations"]}
    assert tolerated == {
        ("sku", "gpu", "NoSchedule"),
        ("nvidia.com/gpu", None, "NoSchedule"),
        ("kubernetes.azure.com/scalesetpriority", "spot", "NoSchedule"),
    }
    (container,) = spec["containers"]
    assert "nvidia.com/gpu" not in json.dumps(container["resources"])  # takes no device from a job


def test_the_exporter_has_the_one_capability_that_profiling_needs_and_no_more() -> None:
    spec = pod_spec(scenario("default"), "-exporter")
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    assert context["privileged"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    (host,) = [one for one in spec["volumes"] if "hostPath" in one]
    assert host["hostPath"]["path"] == "/var/lib/kubelet/pod-resources"
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert mounts[host["name"]]["readOnly"] is True


def test_where_the_namespace_is_restricted_the_exporter_is_too() -> None:
    objects = scenario("restricted")
    spec = pod_spec(objects, "-exporter")
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert not any("hostPath" in volume for volume in spec["volumes"])
    assert "--kubernetes=false" in container["args"]
    counters = only(objects, "ConfigMap", "-counters")["data"]["counters.csv"]
    assert "DCGM_FI_PROF_" not in re.sub("#.*", "", counters)


def test_the_exporter_reads_every_counter_that_operators_were_promised() -> None:
    text = only(scenario("mig-plugin"), "ConfigMap", "-counters")["data"]["counters.csv"]
    rows = [line.split(",", 2) for line in text.splitlines() if line and not line.startswith("#")]
    assert not NEEDED - {row[0] for row in rows}
    assert {row[1].strip() for row in rows} <= {"gauge", "counter"}
    assert rows[-1][0] == "DCGM_FI_DEV_MIG_MODE"  # extraCounters
    assert all(re.fullmatch(r"DCGM_FI_[A-Z0-9_]+", row[0]) for row in rows)


def test_mig_instances_are_read_and_offered() -> None:
    objects = scenario("mig-plugin")
    for name in ("-exporter", "-device-plugin"):
        (container,) = pod_spec(objects, name)["containers"]
        env = {one["name"]: one.get("value") for one in container["env"]}
        assert env["NVIDIA_MIG_MONITOR_DEVICES"] == "all", name
    config = only(objects, "ConfigMap", "-device-plugin")["data"]["config.yaml"]
    assert yaml.safe_load(config)["flags"]["migStrategy"] == "mixed"
    assert "--devices=i" in pod_spec(objects, "-exporter")["containers"][0]["args"]


def test_the_device_plugin_is_off_unless_asked_for() -> None:
    assert not [
        one for one in scenario("default") if one["metadata"]["name"].endswith("-device-plugin")
    ]


@pytest.mark.parametrize(
    ("name", "group"),
    [("default", "azmonitoring.coreos.com/v1"), ("operator", "monitoring.coreos.com/v1")],
)
def test_one_switch_says_who_collects(name: str, group: str) -> None:
    monitors = [one for one in scenario(name) if one["kind"] == "PodMonitor"]
    assert {one["apiVersion"] for one in monitors} == {group}
    assert len(monitors) == 2
    nobody = scenario("default", {"monitors": {"kind": "none"}})
    assert not helm.of_kind(nobody, "PodMonitor")


def test_a_monitor_finds_the_exporters_pods_and_darkrooms() -> None:
    objects = scenario("operator")
    exporter = only(objects, "PodMonitor", "-exporter")["spec"]
    pod = only(objects, "DaemonSet", "-exporter")["spec"]["template"]
    assert exporter["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ports = {one["name"] for one in pod["spec"]["containers"][0]["ports"]}
    assert {one["port"] for one in exporter["podMetricsEndpoints"]} <= ports
    darkroom = only(objects, "PodMonitor", "-darkroom")["spec"]
    assert darkroom["selector"]["matchLabels"] == {"app.kubernetes.io/name": "darkroom"}
    assert darkroom["namespaceSelector"] == {"matchNames": ["darkroom", "darkroom-workers"]}


@pytest.mark.parametrize("name", sorted(helm.scenarios("darkroom")))
def test_every_long_lived_pod_of_darkroom_has_the_port_that_the_monitor_scrapes(name: str) -> None:
    monitor = only(scenario("default"), "PodMonitor", "-darkroom")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    wanted = monitor["selector"]["matchLabels"].items()
    objects = helm.render("darkroom", scenario=name)
    for owner, pod in helm.pods(objects):
        if owner["kind"] == "Pod":
            continue  # the doctor's, which ends
        assert wanted <= pod["metadata"]["labels"].items()
        ports = {one["name"] for each in pod["spec"]["containers"] for one in each["ports"]}
        assert endpoint["port"] in ports, owner["metadata"]["name"]


def test_new_counters_restart_the_exporter() -> None:
    key = "checksum/counters"
    before, after = (
        only(scenario(name), "DaemonSet", "-exporter")["spec"]["template"]["metadata"]
        for name in ("default", "mig-plugin")
    )
    assert before["annotations"][key] != after["annotations"][key]


def test_only_those_who_scrape_reach_the_exporter() -> None:
    policy = only(scenario("operator"), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    ((rule),) = policy["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    assert "ingress" not in only(scenario("darkroom-only"), "NetworkPolicy")["spec"]


def test_an_image_goes_by_digest_else_by_a_tag_that_names_a_version() -> None:
    by_digest = pod_spec(scenario("default"), "-exporter")["containers"][0]["image"]
    assert re.fullmatch(r"nvcr\.io/nvidia/k8s/dcgm-exporter@sha256:[0-9a-f]{64}", by_digest)
    by_tag = pod_spec(scenario("mig-plugin"), "-exporter")["containers"][0]["image"]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert by_tag == f"mirror.example.com/nvidia/k8s/dcgm-exporter:{version}-distroless"


def test_every_value_has_a_sentence_above_it_and_stands_in_the_schema() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if re.match(r" *[A-Za-z_./]+:", line) and not above.lstrip().startswith("#")
    ]
    assert [line.strip() for line in bare] == [
        "operator: Equal",
        "value: gpu",
        "effect: NoSchedule",
        "operator: Exists",
        "effect: NoSchedule",
        "operator: Equal",
        "value: spot",
        "effect: NoSchedule",
    ]  # the lists of tolerations, explained above


REFUSED = [
    ("exporter.privileges=root", "exporter/privileges"),
    ("exporter.port=80", "exporter/port"),
    ("exporter.intervalMilliseconds=10", "exporter/intervalMilliseconds"),
    ("exporter.devices=all", "exporter/devices"),
    ("exporter.image.tag=latest", "exporter/image/tag"),
    ("exporter.image.digest=sha256:short", "exporter/image/digest"),
    ("exporter.image.pullPolicy=Sometimes", "exporter/image/pullPolicy"),
    ("exporter.podResourcesPath=var/lib", "exporter/podResourcesPath"),
    ("exporter.extraCounters[0]=GPU_UTIL", "exporter/extraCounters/0"),
    ("exporter.tolerations[0].effect=Never", "exporter/tolerations/0/effect"),
    ("exporter.resources.limits.memory=lots", "exporter/resources/limits/memory"),
    ("exporter.enable=true", "exporter"),
    ("monitors.kind=managed", "monitors/kind"),
    ("monitors.interval=30", "monitors/interval"),
    ("monitors.darkroom.namespaces[0]=Not_A_Name", "monitors/darkroom/namespaces/0"),
    ("monitors.darkroom.port=much-too-long-a-port-name", "monitors/darkroom/port"),
    ("networkPolicy.scrapedFrom=null", "networkPolicy"),
    ("rules.enabled=true", "monitors/kind"),
    ("devicePlugin.migStrategy=half", "devicePlugin/migStrategy"),
    ("devicePlugin.image.repository=NOT/LOWER", "devicePlugin/image/repository"),
    ("fullnameOverride=-dash", "fullnameOverride"),
    ("commonLabels.team=with space", "commonLabels/team"),
    ("dashboards.folder=x", "dashboards"),
    ("unknown=1", "unknown"),
]


@pytest.mark.parametrize(("value", "named"), REFUSED, ids=[value for value, _ in REFUSED])
def test_a_value_that_cannot_work_is_refused_by_name(value: str, named: str) -> None:
    with pytest.raises(helm.Refused) as refused:
        helm.run("template", RELEASE, CHART, "--set", value)
    assert named in str(refused.value).replace(".", "/")


@pytest.mark.parametrize("name", ["default", "restricted", "operator"])
def test_the_notes_tell_the_next_command(name: str) -> None:
    values = helm.scenarios(CHART.name)[name]
    told = helm.run("install", RELEASE, CHART, "--dry-run=client", "-n", NAMESPACE, "-f", values)
    text = told.split("NOTES:", 1)[1]
    assert "kubectl -n gpu-monitoring port-forward" in text
    assert ("pod-security.kubernetes.io/enforce=privileged" in text) == (name != "restricted")
    assert ("az deployment group create" in text) == (name != "operator")
