"""What a control plane refuses although every schema allows it.

From the validation of Kubernetes' own kinds (k8s.io/kubernetes/pkg/apis/*/validation), and from the
admission webhooks of KEDA (`CheckFallbackValid`, `CheckReplicaCountBoundsAreValid`) and of Kueue
(`validateFlavorQuotas`).
"""

import re
from collections.abc import Iterator
from typing import Any

from tests.charts.helm import Object, containers, pods

LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
KEY = re.compile(rf"({SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
MAX_CONTENT_BYTES = 1024 * 1024  # of a ConfigMap
MAX_ANNOTATION_BYTES = 256 * 1024  # of an object, all together


def refusals(each: Object) -> list[str]:
    """Return what would be refused in one object; empty where nothing would."""
    found = [*_metadata(each["metadata"]), *_of_kind(each)]
    for _, pod in pods([each]):
        found += [*_metadata(pod["metadata"]), *_pod(pod["spec"])]
        for container in containers(pod):
            found += [f"{container['name']}: {what}" for what in _container(container)]
    return found


def _metadata(meta: Object) -> Iterator[str]:
    for key, value in (meta.get("labels") or {}).items():
        if not KEY.fullmatch(key) or not LABEL.fullmatch(value):
            yield f"label {key}={value}"
    notes = meta.get("annotations") or {}
    yield from (f"annotation {key}" for key in notes if not KEY.fullmatch(key))
    if sum(len(key) + len(value.encode()) for key, value in notes.items()) > MAX_ANNOTATION_BYTES:
        yield "annotations are too large"
    if "name" in meta and not re.fullmatch(SUBDOMAIN, meta["name"].replace(":", "")):
        yield f"name {meta['name']}"


def _of_kind(each: Object) -> Iterator[str]:
    name, spec = each["metadata"]["name"], each.get("spec") or {}
    match each["kind"]:
        case "Service" if not DNS_1035.fullmatch(name):
            yield f"a Service cannot be called {name}"
        case "PriorityClass" if name.startswith("system-"):
            yield f"a PriorityClass cannot be called {name}"
        case "ConfigMap" if sum(map(len, (each.get("data") or {}).values())) > MAX_CONTENT_BYTES:
            yield "the content is too large"
        case "PodDisruptionBudget" if {"minAvailable", "maxUnavailable"} <= spec.keys():
            yield "both bounds are set"
        case "HorizontalPodAutoscaler" if spec["minReplicas"] > spec["maxReplicas"]:
            yield "minReplicas is over maxReplicas"
        case "NetworkPolicy":
            yield from _peers(spec)
        case "ScaledObject":
            yield from _scaled(spec)
        case "ClusterQueue":
            yield from _queue(spec)


def _peers(spec: Object) -> Iterator[str]:
    rules = [*spec.get("ingress", []), *spec.get("egress", [])]
    for peer in (one for rule in rules for one in [*rule.get("from", []), *rule.get("to", [])]):
        if not peer or ("ipBlock" in peer and len(peer) > 1):
            yield f"peer {peer}"


def _scaled(spec: Object) -> Iterator[str]:
    if spec["minReplicaCount"] > spec["maxReplicaCount"]:
        yield "minReplicaCount is over maxReplicaCount"
    kinds = [
        one.get("metricType") for one in spec["triggers"] if one["type"] not in {"cpu", "memory"}
    ]
    if "fallback" in spec and "AverageValue" not in kinds:
        yield "a fallback needs a trigger of metricType AverageValue, said aloud"
    names = [one["name"] for one in spec["triggers"] if "name" in one]
    if len(names) != len(set(names)):
        yield "two triggers have one name"


def _queue(spec: Object) -> Iterator[str]:
    for group in spec["resourceGroups"]:
        for flavor in group["flavors"]:
            if [one["name"] for one in flavor["resources"]] != group["coveredResources"]:
                yield f"flavour {flavor['name']} has other resources, or another order"
    if "cohortName" not in spec and spec["preemption"].get("reclaimWithinCohort") != "Never":
        yield "there is no cohort to reclaim in"


def _pod(spec: Object) -> Iterator[str]:
    volumes = [one["name"] for one in spec.get("volumes", [])]
    mounted = {one["name"] for c in containers({"spec": spec}) for one in c.get("volumeMounts", [])}
    yield from (f"volume {one} is not there" for one in mounted - set(volumes))
    yield from (f"volume {one}" for one in volumes if not DNS_1123.fullmatch(one))
    if len(volumes) != len(set(volumes)):
        yield "two volumes have one name"
    spread = [
        (one["topologyKey"], one["whenUnsatisfiable"])
        for one in spec.get("topologySpreadConstraints", [])
    ]
    if len(spread) != len(set(spread)):
        yield "a spread stands twice"
    for one in spec.get("tolerations", []):
        exists = one.get("operator") == "Exists"
        if (exists and one.get("value")) or (not exists and not one.get("key")):
            yield f"toleration {one}"
        if "tolerationSeconds" in one and one.get("effect") != "NoExecute":
            yield f"toleration {one}"
    for term in _terms(spec.get("affinity", {})):
        needs_values = term["operator"] in {"In", "NotIn"}
        if needs_values != bool(term.get("values")):
            yield f"affinity {term}"


def _terms(part: Any) -> Iterator[Object]:
    """Yield every requirement of an affinity, wherever it stands."""
    if isinstance(part, dict):
        yield from part.get("matchExpressions", [])
        for inner in part.values():
            yield from _terms(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _terms(inner)


def _container(container: Object) -> Iterator[str]:
    ports = {one["name"] for one in container.get("ports", [])}
    yield from (f"port {one}" for one in ports if not PORT_NAME.fullmatch(one))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container.get(probe)
        if asked is None:
            continue
        handlers = asked.keys() & {"httpGet", "exec", "tcpSocket", "grpc"}
        port = asked.get("httpGet", {}).get("port")
        if len(handlers) != 1 or (isinstance(port, str) and port not in ports):
            yield probe
        if probe != "readinessProbe" and asked.get("successThreshold", 1) != 1:
            yield f"{probe}: successThreshold"
        if min(asked.get(field, 1) for field in ("periodSeconds", "failureThreshold")) < 1:
            yield f"{probe}: below 1"
    for variable in container.get("env", []):
        if variable.get("value") and "valueFrom" in variable:
            yield f"{variable['name']} has a value and a source"
    security = container.get("securityContext", {})
    added = security.get("capabilities", {}).get("add", [])
    kept = security.get("allowPrivilegeEscalation") is False
    if kept and (security.get("privileged") or "CAP_SYS_ADMIN" in added):
        yield "allowPrivilegeEscalation is false, and it has more than that already"
