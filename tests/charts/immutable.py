"""Fields that an API server lets nobody change once an object is there.

From Kubernetes' validation of updates (`ValidateDeploymentUpdate`, `ValidateServiceUpdate`, … in
k8s.io/kubernetes/pkg/apis) and from the transition rules in the definitions of Kueue. An upgrade
that changes one fails half-way, and a person has to delete the object first.
"""

from typing import Any

from tests.charts.helm import Object

FIELDS: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "ReplicaSet": ("spec.selector",),
    "StatefulSet": (
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
        "spec.podManagementPolicy",
    ),
    "Job": ("spec.selector", "spec.template", "spec.completionMode", "spec.manualSelector"),
    "Service": ("spec.clusterIP", "spec.clusterIPs", "spec.ipFamilies"),
    "PersistentVolumeClaim": (
        "spec.accessModes",
        "spec.storageClassName",
        "spec.volumeMode",
        "spec.volumeName",
        "spec.selector",
        "spec.dataSource",
    ),
    "PersistentVolume": ("spec.csi", "spec.volumeMode", "spec.nodeAffinity"),
    "StorageClass": ("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"),
    "PriorityClass": ("value", "preemptionPolicy"),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
    "RuntimeClass": ("handler",),
    "LocalQueue": ("spec.clusterQueue",),
    "WorkloadPriorityClass": ("value",),
    "HTTPRoute": (),
}
FIXED_CONTENT = ("ConfigMap", "Secret")  # data and binaryData, where `immutable: true` stands

Key = tuple[str, str, str, str]


def key(each: Object) -> Key:
    """Return what tells an object from every other: group, kind, namespace, name."""
    group = each["apiVersion"].rpartition("/")[0]
    meta = each["metadata"]
    return group, each["kind"], meta.get("namespace", ""), meta["name"]


def by_key(objects: list[Object]) -> dict[Key, Object]:
    """Return the objects that an upgrade changes; hooks are deleted and made anew."""
    return {key(one): one for one in objects if not is_hook(one)}


def is_hook(each: Object) -> bool:
    """Whether helm makes this object anew at every run."""
    return "helm.sh/hook" in (each["metadata"].get("annotations") or {})


def at(each: Object, path: str) -> Any:
    """Return what stands at a dotted path, or None."""
    found: Any = each
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def refused_changes(before: Object, after: Object) -> list[str]:
    """Return the changes of one object that an API server refuses."""
    kind = before["kind"]
    fields = FIELDS.get(kind, ())
    if kind in FIXED_CONTENT and before.get("immutable"):
        fields = ("immutable", "data", "binaryData")
    where = "/".join(part for part in key(before)[1:] if part)
    found = [f"{where}: {field}" for field in fields if at(before, field) != at(after, field)]
    if kind == "PersistentVolumeClaim":
        sizes = [at(each, "spec.resources.requests.storage") for each in (before, after)]
        if bytes_of(sizes[1]) < bytes_of(sizes[0]):
            found.append(f"{where}: spec.resources.requests.storage shrinks")
    return found


def bytes_of(quantity: str) -> int:
    """Return the bytes of a quantity in whole binary units, such as 20Gi."""
    units = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}
    return int(quantity[:-2]) * int(1024 ** units[quantity[-2:]])


def changed_paths(before: Any, after: Any, path: str = "") -> set[str]:
    """Return the dotted paths at which two values differ; items of a list go by their names."""
    if isinstance(before, list) and isinstance(after, list):
        before, after = _named(before), _named(after)
    if isinstance(before, dict) and isinstance(after, dict):
        parts = sorted(before.keys() | after.keys())
        inner = [
            changed_paths(before.get(part), after.get(part), f"{path}.{part}".lstrip("."))
            for part in parts
        ]
        return set().union(*inner)
    return set() if before == after else {path}


def _named(items: list[Any]) -> dict[str, Any]:
    return {
        str(item.get("name", number) if isinstance(item, dict) else number): item
        for number, item in enumerate(items)
    }
