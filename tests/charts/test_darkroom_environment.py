"""The processes take what the chart tells them: the settings classes are loaded from it."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

import worker.settings
from api.settings import ApiSettings
from api.webhooks.settings import WebhookSettings
from api.webhooks.wiring import check
from cli.settings import CliSettings
from darkroom import settings as shared_settings
from darkroom.catalog import Catalog, load_catalog
from darkroom.settings import DarkroomSettings, PodSettings, load
from tests.charts.helm import Object, containers, of_kind, pods, render, scenarios
from tests.packaging.test_docs import REFERENCE

NAMES = sorted(scenarios("darkroom"))
OTHERS = {"HF_TOKEN": "huggingface_hub: a token of the hub"}

scenario = pytest.mark.parametrize("name", NAMES)


def known() -> set[str]:
    """Every variable that a settings class reads."""
    return {
        REFERENCE.variable(kind, field_name, field)
        for kind in REFERENCE.settings_classes()
        for field_name, field in kind.model_fields.items()
    }


def environment(container: Object) -> dict[str, str]:
    """What the container is told; what the cluster fills in is a name."""
    listed = container.get("env", [])
    names = [each["name"] for each in listed]
    assert len(set(names)) == len(names), "a variable stands twice"
    return {each["name"]: each.get("value", "from-the-cluster") for each in listed}


def catalog_of(objects: list[Object], folder: Path) -> Catalog:
    path = folder / "catalog.yaml"
    path.write_text(of_kind(objects, "ConfigMap")[0]["data"]["catalog.yaml"])
    return load_catalog(path)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that loads a settings class from a container's environment alone."""

    def loaded(kind: type[BaseSettings], container: Object) -> Any:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("DARKROOM_")]:  # noqa: TID251
                patch.delenv(name)
            for name, value in environment(container).items():
                patch.setenv(name, value)
            return load(kind)

    return loaded


@scenario
def test_every_variable_is_a_setting_of_the_code(name: str) -> None:
    names = {
        variable
        for _, pod in pods(render("darkroom", scenario=name))
        for container in containers(pod)
        for variable in environment(container)
    }
    assert names
    assert not names - known() - OTHERS.keys()


@scenario
def test_every_process_is_told_the_same_backends_leases_and_catalog(name: str, told: Any) -> None:
    found = [
        told(DarkroomSettings, container)
        for _, pod in pods(render("darkroom", scenario=name))
        for container in pod["spec"]["containers"]
    ]
    assert len(found) > 2
    assert all(settings == found[0] for settings in found)
    assert found[0].catalog == Path("/etc/darkroom/catalog.yaml")


@scenario
def test_the_settings_of_each_tier_load(name: str, told: Any, tmp_path: Path) -> None:
    objects = render("darkroom", scenario=name)
    catalog = catalog_of(objects, tmp_path)
    seen = set()
    for owner, pod in pods(objects):
        for container in pod["spec"]["containers"]:
            seen.add(container["name"])
            match container["name"]:
                case "api":
                    api = told(ApiSettings, container)
                    assert (api.host, api.port) == ("0.0.0.0", 8080)
                    sweeps = owner["metadata"]["labels"]["app.kubernetes.io/component"] == "sweeper"
                    assert bool(api.sweep_seconds) is sweeps
                case "webhooks":
                    check(told(WebhookSettings, container), told(DarkroomSettings, container))
                case "worker":
                    check_worker(pod, container, told, catalog)
                case "doctor":
                    assert told(CliSettings, container).url.startswith("http://darkroom-api.")
    assert {"api", "worker"} <= seen


def check_worker(pod: Object, container: Object, told: Any, catalog: Catalog) -> None:
    """Invariant 6, by the worker's own rules."""
    mine = told(worker.settings.WorkerSettings, container)
    pool = catalog.pool(mine.pool)
    grace = mine.grace_for(pool)  # raises what the worker would refuse to start with
    assert grace >= pool.max_gpu_seconds + worker.settings.STORING_SECONDS
    assert pod["spec"]["terminationGracePeriodSeconds"] > grace
    assert (mine.metrics_host, mine.metrics_port) == ("0.0.0.0", 9090)
    cluster = told(PodSettings, container)
    assert cluster.pod_name
    assert cluster.pod_namespace
    shared = told(DarkroomSettings, container)
    has_one_job = shared.queue_url.startswith("kubernetes://")
    assert bool(cluster.job_name) == has_one_job
    assert bool(mine.warm_models) != has_one_job, "it would load a model for nothing"


@scenario
def test_leases_last_three_renewals_and_replicas_are_given_no_more_than_they_run(
    name: str, told: Any, tmp_path: Path
) -> None:
    objects = render("darkroom", scenario=name)
    catalog = catalog_of(objects, tmp_path)
    for _, pod in pods(objects):
        shared = told(DarkroomSettings, pod["spec"]["containers"][0])
        assert shared.lease_seconds >= shared_settings.RENEWALS_PER_LEASE * shared.renew_seconds
    for each in of_kind(objects, "ScaledObject", "ScaledJob"):
        backlog = each["spec"]["triggers"][0]["metadata"]
        assert int(backlog["messageCount"]) <= catalog.pool(backlog["queueName"]).concurrency


def test_the_init_container_pulls_to_where_the_worker_reads(told: Any) -> None:
    for _, pod in pods(render("darkroom", scenario="network-locked")):
        for puller in pod["spec"].get("initContainers", []):
            arguments = puller["args"]
            (reader,) = pod["spec"]["containers"]
            folder = arguments[arguments.index("--cache") + 1]
            assert environment(reader)["DARKROOM_MODELS_DIR"] == folder
            assert arguments[arguments.index("--from") + 1] == "azblob://darkroomlocked/models"
            assert arguments[:3] == ["models", "pull", "sd15"]
            mounted = {mount["mountPath"] for mount in puller["volumeMounts"]}
            assert "/cache" in mounted


def test_secret_files_are_mounted_where_the_settings_look(told: Any) -> None:
    objects = render("darkroom", scenario="keyvault")
    api, sender = (
        next(pod for owner, pod in pods(objects) if owner["metadata"]["name"] == f"darkroom-{name}")
        for name in ("api", "webhooks")
    )
    settings = told(ApiSettings, api["spec"]["containers"][0])
    assert settings.keys_file == Path("/mnt/secrets/api-keys.yaml")
    signing = told(WebhookSettings, sender["spec"]["containers"][0])
    assert signing.secrets_file == Path("/mnt/secrets/webhook-secrets.yaml")
    aliases = {
        each["metadata"]["name"]: each["spec"]["parameters"]["objects"]
        for each in of_kind(objects, "SecretProviderClass")
    }
    assert "objectAlias: api-keys.yaml" in aliases["darkroom-api"]
    assert "api-keys" not in aliases["darkroom-webhooks"], "the sender gets no API keys"


def test_workers_wake_for_evictions_unless_told_otherwise(told: Any) -> None:
    for name, expected in (("minimal", True), ("test-cluster", False)):
        for _, pod in pods(render("darkroom", scenario=name)):
            (container, *_) = pod["spec"]["containers"]
            if container["name"] == "worker":
                url = told(worker.settings.WorkerSettings, container).scheduled_events_url
                assert bool(url) is expected
