"""An upgrade and its rollback: nothing that may not change changes, and busy workers end first.

v1 is the chart with a scenario; v2 a later version of the chart with other images, another catalog,
other resources. A rollback is the same from v2 to v1.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.catalog import Catalog
from tests.charts import helm
from tests.charts.helm import Object
from tests.charts.immutable import at, by_key, changed_paths, is_hook, key, refused_changes
from worker.settings import STORING_SECONDS, WorkerSettings

CHART = helm.CHARTS / "darkroom"
SCENARIOS = sorted(helm.scenarios("darkroom"))
DIGEST = "sha256:" + "1" * 64
Values = dict[str, Any]

NEXT: Values = {
    "image": {"api": {"digest": DIGEST}, "worker": {"digest": DIGEST}},
    "api": {"resources": {"requests": {"cpu": "750m", "memory": "768Mi"}}},
    "workers": {
        "resources": {"requests": {"cpu": "3", "memory": "20Gi"}, "limits": {"memory": "30Gi"}}
    },
}


@pytest.fixture(scope="module")
def later_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as a later release: another version of it and of the product."""
    folder = tmp_path_factory.mktemp("charts") / "darkroom"
    shutil.copytree(CHART, folder)
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    about |= {"version": "9.9.9", "appVersion": "9.9.9"}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(about))
    return folder


def rendered(chart: Path, scenario: str, values: Values, folder: Path) -> list[Object]:
    """What helm makes of a chart, a scenario and values over it."""
    over = folder / "over.json"
    over.write_text(json.dumps(values))
    words = ["-n", "darkroom", "-f", helm.scenarios("darkroom")[scenario], "-f", over]
    text = helm.run("template", "darkroom", chart, *words)
    return [one for one in yaml.load_all(text, Loader=helm.Loader) if one]


@cache
def installed(scenario: str) -> list[Object]:
    return helm.render("darkroom", scenario=scenario)


@cache
def all_values(scenario: str) -> Values:
    """The values that a scenario comes to, the chart's own under it."""
    base = helm.read(CHART / "values.yaml")
    over = helm.read(helm.scenarios("darkroom")[scenario]) or {}
    return _over(base, over)


def _over(base: Values, over: Values) -> Values:
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _over(base[name], value) if both else value
    return merged


def catalog_with(scenario: str, **changes: Any) -> Values:
    """The scenario's catalog with changes of its first model and of its pools."""
    catalog = copy.deepcopy(all_values(scenario)["catalog"])
    catalog["models"][0] |= changes.get("model", {})
    for pool in catalog["pools"]:
        pool.update(changes.get("pool", {}))
    return {"catalog": catalog}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_upgrade_and_its_rollback_change_no_field_that_may_not_change(
    scenario: str, later_chart: Path, tmp_path: Path
) -> None:
    values = _over(NEXT, catalog_with(scenario, model={"load_seconds": 77}))
    before, after = installed(scenario), rendered(later_chart, scenario, values, tmp_path)
    old, new = by_key(before), by_key(after)
    assert old.keys() == new.keys(), "an object goes or comes: its name follows a version"
    refused = [
        found
        for name in old
        for pair in ((old[name], new[name]), (new[name], old[name]))
        for found in refused_changes(*pair)
    ]
    assert refused == []
    hooks = [one for one in after if is_hook(one)]
    policies = {one["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for one in hooks}
    assert policies <= {"before-hook-creation"}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "selector", "matchLabels", "version"), "2"),
        ("RoleBinding", ("roleRef", "name"), "other"),
        ("PriorityClass", ("value",), 7),
        ("Service", ("spec", "clusterIP"), "None"),
    ],
)
def test_a_change_that_an_api_server_refuses_is_noticed(
    kind: str, path: tuple[str, ...], value: Any
) -> None:
    one = helm.of_kind(installed("minimal"), kind)[0]
    other = copy.deepcopy(one)
    inner = other
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    assert refused_changes(one, other)


def workers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every worker's pod template, by the name of what owns it."""
    for owner, template in helm.pods(objects):
        if template["metadata"].get("labels", {}).get("darkroom/tier") == "worker":
            yield owner["metadata"]["name"], template


IMAGES = {"spec.containers.worker.image", "spec.initContainers.models.image"}
CHECKSUM = "metadata.annotations.checksum/catalog"
DIGEST_ENV = "spec.containers.worker.env.DARKROOM_WORKER_IMAGE_DIGEST"
SHORT_AND_LONG = {"darkroom-worker-short", "darkroom-worker-long"}

# Every kind of change that replaces workers, and by which fields of their pods.
RESTARTS: dict[str, tuple[Values, set[str]]] = {
    "another worker image": ({"image": {"worker": {"digest": DIGEST}}}, IMAGES | {DIGEST_ENV}),
    "other resources of workers": (
        {"workers": {"resources": {"requests": {"cpu": "3", "memory": "20Gi"}}}},
        {
            "spec.containers.worker.resources.requests.cpu",
            "spec.containers.worker.resources.requests.memory",
        },
    ),
    "a model of the pool changes": (
        catalog_with("minimal", model={"seconds_per_megapixel_step": 0.9}),
        {CHECKSUM},
    ),
    "the pool's price changes": (
        catalog_with("minimal", pool={"price_per_hour_usd": 9}),
        {CHECKSUM},
    ),
    "annotations of worker pods": (
        {"workers": {"podAnnotations": {"team": "imaging"}}},
        {"metadata.annotations.team"},
    ),
    "labels of every object": (
        {"commonLabels": {"team": "imaging"}},
        {"metadata.labels.team"},
    ),
}

# Every change that an operator makes often and that must leave busy workers alone.
LEAVES_WORKERS_ALONE: dict[str, Values] = {
    "nothing but the chart's version": {},
    "another API image": {"image": {"api": {"digest": DIGEST}}},
    "resources of the API": {"api": {"resources": {"requests": {"cpu": "2", "memory": "512Mi"}}}},
    "bounds of the replicas": catalog_with("minimal", pool={"replicas": {"min": 1, "max": 9}}),
    "pace of the autoscaler": {"workers": {"keda": {"cooldownSeconds": 900}}},
    "the autoscaler's polling": {"workers": {"keda": {"pollingSeconds": 20}}},
    "disruption budget": {"workers": {"podDisruptionBudget": {"maxUnavailable": 2}}},
    "replicas of the API": {"api": {"autoscaling": {"minReplicas": 3, "maxReplicas": 9}}},
    "the doctor's patience": {"tests": {"timeoutSeconds": 1200}},
}


def differences(values: Values, chart: Path, folder: Path) -> dict[str, set[str]]:
    """Which worker pods differ from the installed ones, and where."""
    before = dict(workers(installed("minimal")))
    after = dict(workers(rendered(chart, "minimal", values, folder)))
    assert before.keys() == after.keys()
    found = {name: changed_paths(before[name], after[name]) for name in before}
    return {name: paths for name, paths in found.items() if paths}


@pytest.mark.parametrize("change", RESTARTS)
def test_these_changes_replace_workers_and_by_these_fields(change: str, tmp_path: Path) -> None:
    values, fields = RESTARTS[change]
    found = differences(values, CHART, tmp_path)
    assert set(found) == SHORT_AND_LONG
    for paths in found.values():
        assert {path.removesuffix(".value") for path in paths} == fields


@pytest.mark.parametrize("change", LEAVES_WORKERS_ALONE)
def test_these_changes_replace_no_worker(change: str, later_chart: Path, tmp_path: Path) -> None:
    values = _over({"image": {"worker": {"tag": "0.1.0"}}}, LEAVES_WORKERS_ALONE[change])
    before = dict(
        workers(rendered(CHART, "minimal", {"image": {"worker": {"tag": "0.1.0"}}}, tmp_path))
    )
    after = dict(workers(rendered(later_chart, "minimal", values, tmp_path)))
    assert {name: changed_paths(before[name], after[name]) for name in before} == {
        name: set() for name in before
    }


def test_another_model_replaces_the_workers_of_its_pools_alone(tmp_path: Path) -> None:
    catalog = copy.deepcopy(all_values("minimal")["catalog"])
    other = catalog["models"][0] | {"name": "other"}
    catalog["models"].append(other)
    catalog["pools"].append(
        {"name": "extra", "models": ["other"], "max_gpu_seconds": 60, "gpu": "T4"}
    )
    with_pool = rendered(CHART, "minimal", {"catalog": catalog}, tmp_path)
    changed = copy.deepcopy(catalog)
    changed["models"][-1]["seconds_per_megapixel_step"] = 0.9
    with_other_speed = dict(workers(rendered(CHART, "minimal", {"catalog": changed}, tmp_path)))
    differ = {
        name for name, pod in workers(with_pool) if changed_paths(pod, with_other_speed[name])
    }
    assert differ == {"darkroom-worker-extra"}
    first = dict(workers(installed("minimal")))
    assert all(not changed_paths(first[name], dict(workers(with_pool))[name]) for name in first)


def env_of(pod: Object) -> dict[str, str]:
    (container,) = [one for one in pod["spec"]["containers"] if one["name"] == "worker"]
    return {one["name"]: one.get("value", "") for one in container["env"]}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_worker_that_is_replaced_ends_its_longest_job_first(
    scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own code reads the rendered environment and says how long it goes on."""
    objects = installed(scenario)
    (text,) = {
        one["data"]["catalog.yaml"]
        for one in helm.of_kind(objects, "ConfigMap")
        if "catalog.yaml" in one["data"]
    }
    catalog = Catalog.model_validate(yaml.safe_load(text))
    found = list(workers(objects))
    assert found
    for name, pod in found:
        for variable, value in env_of(pod).items():
            if value:
                monkeypatch.setenv(variable, value)
        settings = WorkerSettings()
        pool = catalog.pool(settings.pool)
        drains = settings.grace_for(pool)  # refuses less than the pool's longest job
        assert drains >= pool.max_gpu_seconds + STORING_SECONDS, name
        assert pod["spec"]["terminationGracePeriodSeconds"] >= drains, name


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_new_worker_is_ready_before_a_busy_one_is_asked_to_leave(scenario: str) -> None:
    objects = installed(scenario)
    for one in helm.of_kind(objects, "Deployment"):
        assert at(one, "spec.strategy.type") == "RollingUpdate"
        assert at(one, "spec.strategy.rollingUpdate.maxUnavailable") == 0
        assert at(one, "spec.strategy.rollingUpdate.maxSurge") not in (0, None)
        assert one["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    for one in helm.of_kind(objects, "ScaledJob"):
        assert at(one, "spec.rollout.strategy") == "gradual"  # running Jobs are left alone
    for one in helm.of_kind(objects, "PodDisruptionBudget"):
        assert (
            at(one, "spec.maxUnavailable") is not None or at(one, "spec.minAvailable") is not None
        )


def test_with_kubernetes_dispatch_an_upgrade_touches_no_job() -> None:
    """The API makes the Jobs, from templates: helm owns none, and so replaces none."""
    objects = installed("kubernetes-dispatch")
    assert not helm.of_kind(objects, "Job", "ScaledJob", "ScaledObject")
    assert helm.of_kind(objects, "PodTemplate")
    assert len({key(one) for one in objects}) == len(objects)


@pytest.mark.parametrize(
    ("scenario", "kind", "values"),
    [
        ("minimal", "PriorityClass", {"priorityClasses": {"classes": {"low": {"value": 7}}}}),
        ("kubernetes-dispatch", "LocalQueue", {"workers": {"clusterQueue": "another"}}),
        ("test-cluster", "PersistentVolumeClaim", {"sharedVolume": {"storageClassName": "fast"}}),
        ("blob-csi", "PersistentVolume", {"azure": {"storage": {"modelsContainer": "others"}}}),
    ],
)
def test_what_an_upgrade_cannot_change_is_documented(
    scenario: str, kind: str, values: Values
) -> None:
    old, new = (
        by_key(installed(scenario)),
        by_key(helm.render("darkroom", values, scenario=scenario)),
    )
    both = old.keys() & new.keys()
    refused = {name[1] for name in both if refused_changes(old[name], new[name])}
    assert refused == {kind}
    page = (helm.ROOT / "docs" / "chart.md").read_text()
    rows = page.partition("## What an upgrade cannot change")[2].partition("\n## ")[0].splitlines()
    assert [row for row in rows if f"| {kind} |" in row]
