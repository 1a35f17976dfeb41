"""`darkroom doctor`: is this installation well, and if not, what cures it."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from cli import doctor_backends as backends_check
from cli.doctor_findings import Finding, examined, fail, is_healthy, ok, print_json, print_table
from cli.doctor_job import job_ends_well
from cli.problems import CommandFailed, needing
from cli.settings import WorkloadIdentitySettings, load_cli_settings
from darkroom.catalog import Catalog, load_catalog
from darkroom.errors import SettingsError
from darkroom.settings import AzureEmulatorSettings, DarkroomSettings, PodSettings, load
from darkroom.wiring import Backends, open_backends

EXPECTATIONS = ("keda", "kueue", "templates", "secrets", "gpu")
AZURE = {"servicebus", "aztables", "azblob"}


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; ``wait_seconds`` is the demo job's, 0 for no job."""

    url: str | None
    cluster: bool
    expect: Sequence[str]
    namespace: str | None
    workers_namespace: str | None
    wait_seconds: float
    as_json: bool


def examine(asked: Asked) -> None:
    """Print what was found. Raises `CommandFailed` with status 1 when a check failed."""
    if unknown := set(asked.expect) - set(EXPECTATIONS):
        known = ", ".join(EXPECTATIONS)
        raise CommandFailed(f"--expect {sorted(unknown)[0]} is not known; there are {known}", 2)
    findings = asyncio.run(_all(asked))
    if asked.wait_seconds:
        settings = load_cli_settings(asked.url)
        key = settings.api_key.get_secret_value() if settings.api_key else None
        findings += job_ends_well(settings.url, key, asked.wait_seconds)
    (print_json if asked.as_json else print_table)(findings)
    if not is_healthy(findings):
        raise CommandFailed("something is wrong; the cures stand beside it")


async def _all(asked: Asked) -> list[Finding]:
    """Check everything but the API; without settings and catalog there is nothing more to check."""
    try:
        settings = load(DarkroomSettings)
        catalog = load_catalog(settings.catalog)
    except SettingsError as error:
        cure = "docs/configuration.md describes every variable"
        return [fail("settings", error.message, cure)]
    names = ", ".join(pool.name for pool in catalog.pools)
    findings = [
        ok("catalog", f"models: {len(catalog.models)}, pools: {names}"),
        *backends_check.settings_agree(settings, catalog),
    ]
    if _uses_azure(settings):
        in_cluster = asked.cluster or bool(asked.expect)
        findings += await _azure(settings, catalog, in_cluster=in_cluster)
    findings += await _backends(settings, catalog)
    if asked.cluster or asked.expect:
        findings += await _cluster(asked, settings, catalog)
    return findings


async def _backends(settings: DarkroomSettings, catalog: Catalog) -> list[Finding]:
    try:
        backends = open_backends(settings, catalog)
    except SettingsError as error:
        return [fail("backends", error.message, "docs/backends.md describes every URL")]
    try:
        return await _ask(backends, settings.region)
    finally:
        await backends.close()


async def _ask(backends: Backends, region: str) -> list[Finding]:
    cure = "check the URL, the network and the roles that docs/backends.md names"
    checks = [
        (f"queue {pool}", partial(backends_check.queue_answers, pool, queue))
        for pool, queue in backends.queues.items()
    ]
    checks.append(("job store", partial(backends_check.job_store_answers, backends.jobs, region)))
    checks.append(
        ("image store", partial(backends_check.image_store_keeps, backends.images, region))
    )
    return [each for name, check in checks for each in await examined(name, check, cure)]


def _uses_azure(settings: DarkroomSettings) -> bool:
    urls = (settings.queue_url, settings.jobstore_url, settings.imagestore_url)
    return any(urlsplit(url).scheme in AZURE for url in urls)


async def _azure(
    settings: DarkroomSettings, catalog: Catalog, *, in_cluster: bool
) -> list[Finding]:
    with needing("azure", "the doctor's look at Azure"):
        from cli import doctor_azure
        from darkroom.azure_clients import default_credential, emulated_service_bus, service_bus
    emulated = load(AzureEmulatorSettings)
    findings: list[Finding] = []
    async with AsyncExitStack() as closing:
        credential = default_credential()
        closing.push_async_callback(credential.close)
        if not (emulated.servicebus.get_secret_value() or emulated.storage.get_secret_value()):
            identity = load(WorkloadIdentitySettings)
            findings += doctor_azure.identity_is_given(identity, in_cluster=in_cluster)
            findings += await doctor_azure.identity_works(credential, identity.client_id)
        url = urlsplit(settings.queue_url)
        if url.scheme != "servicebus":
            return findings
        if text := emulated.servicebus.get_secret_value():
            client, admin = emulated_service_bus(text, emulated.servicebus_admin.get_secret_value())
        else:
            client, admin = service_bus(url.netloc, credential)
        closing.push_async_callback(client.close)
        closing.push_async_callback(admin.close)
        for pool in catalog.pools:
            check = partial(doctor_azure.queue_is_set_up, admin, pool.name, settings)
            cure = "check the namespace's name and that it can be reached"
            findings += await examined(f"entity {pool.name}", check, cure)
    return findings


async def _cluster(asked: Asked, settings: DarkroomSettings, catalog: Catalog) -> list[Finding]:
    with needing("kubernetes", "the doctor's look at the cluster"):
        from cli import doctor_cluster
        from darkroom.kubernetes_clients import connect
    url = urlsplit(settings.queue_url)
    dispatches = url.scheme == "kubernetes"
    expect = asked.expect or (["templates", "gpu"] if dispatches else ["keda", "gpu"])
    try:
        client = connect()
    except SettingsError as error:
        return [fail("cluster", error.message, "run it in a pod, or set KUBECONFIG")]
    namespace = asked.namespace or load(PodSettings).pod_namespace or client.namespace
    prefix = (url.path.strip("/") if dispatches else "") or "darkroom"
    place = doctor_cluster.Place(
        client=client,
        namespace=namespace,
        workers_namespace=asked.workers_namespace or (url.netloc if dispatches else namespace),
        templates={pool.name: f"{prefix}-{pool.name}" for pool in catalog.pools},
    )
    try:
        return [each for what in expect for each in await doctor_cluster.look(place, what)]
    finally:
        await client.close()
