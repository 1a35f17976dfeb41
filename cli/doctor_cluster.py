"""The doctor's look at the cluster: the objects that the chart and its operators should have made.

Each expectation is one list or get call, so that the doctor needs no other right; what it may not
see is a warning, since the installation may be well.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightkube import AsyncClient
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import Node, PodTemplate

from cli.doctor_findings import Finding, fail, ok, warn
from darkroom.errors import NotFound, QueueUnavailable
from darkroom.kubernetes_clients import gathered, patiently

ScaledObject = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
LocalQueue = create_namespaced_resource("kueue.x-k8s.io", "v1beta2", "LocalQueue", "localqueues")
SecretProviderClass = create_namespaced_resource(
    "secrets-store.csi.x-k8s.io", "v1", "SecretProviderClass", "secretproviderclasses"
)
INSTALL = {
    "keda": "install KEDA (az aks update --enable-keda)",
    "kueue": "install Kueue, as docs/install.md says",
    "secrets": "enable AKS's add-on azure-keyvault-secrets-provider",
}


@dataclass(frozen=True)
class Place:
    """Where the installation is: the API's namespace, the workers', and the pools' templates."""

    client: AsyncClient
    namespace: str
    workers_namespace: str
    templates: Mapping[str, str]


async def scaled_objects(place: Place) -> Sequence[Finding]:
    """Check that KEDA is there and has every ScaledObject in hand."""
    found = await _listed(place, ScaledObject, place.workers_namespace, "keda")
    return _conditions("keda", "ScaledObject", found, "Ready", "kubectl describe scaledobject")


async def local_queues(place: Place) -> Sequence[Finding]:
    """Check that Kueue is there and admits to every LocalQueue."""
    found = await _listed(place, LocalQueue, place.workers_namespace, "kueue")
    return _conditions("kueue", "LocalQueue", found, "Active", "kubectl describe localqueue")


async def secret_provider_classes(place: Place) -> Sequence[Finding]:
    """Check that the Key Vault provider is there, with the chart's objects for it."""
    found = await _listed(place, SecretProviderClass, place.namespace, "secrets")
    if not found:
        return [fail("secrets", "no SecretProviderClass", "helm upgrade with keyVault.enabled")]
    return [ok("secrets", f"{len(found)} SecretProviderClass")]


async def pod_templates(place: Place) -> Sequence[Finding]:
    """Check that every pool has the PodTemplate that its Jobs are made of."""
    findings = []
    for pool, template in place.templates.items():
        name = f"template {pool}"
        try:
            found = await patiently("reading a PodTemplate", _get(place, template))
        except NotFound:
            cure = f"helm upgrade with the pool in the catalog: it makes PodTemplate {template}"
            findings.append(fail(name, "there is none", cure))
            continue
        spec = found.template.spec if found.template else None
        if spec is None or "worker" not in {each.name for each in spec.containers}:
            findings.append(fail(name, "has no container called worker", "use the chart's"))
        else:
            findings.append(ok(name, template))
    return findings


async def gpu_nodes(place: Place) -> Sequence[Finding]:
    """Count what the nodes have to give of ``nvidia.com/...``."""
    nodes = await patiently(
        "listing nodes", lambda: gathered(place.client.list(Node, chunk_size=500))
    )
    given: dict[str, int] = {}
    for node in nodes:
        offered = (node.status.allocatable if node.status else None) or {}
        for resource, amount in offered.items():
            if resource.startswith("nvidia.com/"):
                given[resource] = given.get(resource, 0) + int(amount)
    seen = ", ".join(f"{amount} {resource}" for resource, amount in sorted(given.items()) if amount)
    if seen:
        return [ok("gpu", f"{seen} on {len(nodes)} nodes")]
    if given:
        cure = "look at the device plugin's pods: the driver or the MIG layout is not ready"
        return [fail("gpu", f"nodes have {', '.join(given)}, and 0 to give", cure)]
    cure = "nothing, where GPU pools start at zero nodes; else check the node pool and its quota"
    return [warn("gpu", f"none of {len(nodes)} nodes offers one now", cure)]


CHECKS: Mapping[str, Callable[[Place], Awaitable[Sequence[Finding]]]] = {
    "keda": scaled_objects,
    "kueue": local_queues,
    "templates": pod_templates,
    "secrets": secret_provider_classes,
    "gpu": gpu_nodes,
}


async def look(place: Place, expectation: str) -> Sequence[Finding]:
    """Check one expectation; a kind that is not there, or may not be seen, is a finding."""
    try:
        return await CHECKS[expectation](place)
    except NotFound:
        return [fail(expectation, "its CRDs are not in the cluster", INSTALL.get(expectation, ""))]
    except QueueUnavailable as error:
        if "403" not in error.message:
            return [fail(expectation, error.message, "check the API server and its network")]
        cure = "let the doctor's ServiceAccount list it (tests.rbac of the chart)"
        return [warn(expectation, "this ServiceAccount may not look", cure)]


def _get(place: Place, name: str) -> Callable[[], Awaitable[PodTemplate]]:
    return lambda: place.client.get(PodTemplate, name, namespace=place.workers_namespace)


async def _listed(place: Place, kind: Any, namespace: str, what: str) -> list[Any]:
    return await patiently(
        f"listing what {what} has", lambda: gathered(place.client.list(kind, namespace=namespace))
    )


def _conditions(
    name: str, kind: str, found: Sequence[Any], wanted: str, command: str
) -> list[Finding]:
    if not found:
        return [fail(name, f"no {kind} in the workers' namespace", "helm upgrade the release")]
    bad = [each.metadata.name for each in found if not _is(each, wanted)]
    if bad:
        return [fail(name, f"{kind} not {wanted}: {', '.join(bad)}", f"{command} {bad[0]}")]
    return [ok(name, f"{len(found)} {kind}, all {wanted}")]


def _is(thing: Any, wanted: str) -> bool:
    conditions = (thing.status or {}).get("conditions") or []
    return any(each["type"] == wanted and each["status"] == "True" for each in conditions)
