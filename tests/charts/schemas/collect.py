"""Turn custom resource definitions into the strict schemas that the chart's tests use.

    python -m tests.charts.schemas.collect FOLDER

FOLDER holds the definitions as their projects publish them. Each kind that the charts render
becomes one compact JSON schema in this folder: descriptions and CEL rules are dropped, and every
object whose fields are listed takes no others, since a server-side apply refuses an unknown field.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
SOURCES = {
    "keda.sh": "https://github.com/kedacore/keda config/crd/bases",
    "kueue.x-k8s.io": "https://github.com/kubernetes-sigs/kueue config/components/crd/bases",
    "gateway.networking.k8s.io": "https://github.com/kubernetes-sigs/gateway-api",
    "secrets-store.csi.x-k8s.io": "https://github.com/kubernetes-sigs/secrets-store-csi-driver",
    "azmonitoring.coreos.com": "https://github.com/Azure/prometheus-collector",
    "monitoring.coreos.com": "https://github.com/prometheus-operator/prometheus-operator",
}
KINDS = {
    ("keda.sh", "ScaledObject"),
    ("keda.sh", "ScaledJob"),
    ("keda.sh", "TriggerAuthentication"),
    ("kueue.x-k8s.io", "ClusterQueue"),
    ("kueue.x-k8s.io", "LocalQueue"),
    ("kueue.x-k8s.io", "ResourceFlavor"),
    ("kueue.x-k8s.io", "WorkloadPriorityClass"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("secrets-store.csi.x-k8s.io", "SecretProviderClass"),
    ("azmonitoring.coreos.com", "PodMonitor"),
    ("monitoring.coreos.com", "PodMonitor"),
    ("monitoring.coreos.com", "PrometheusRule"),
}
KEPT = {
    "type", "properties", "items", "required", "enum", "pattern", "format", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    "additionalProperties", "anyOf", "oneOf", "allOf", "not",
}  # fmt: skip


def strict(schema: Any) -> Any:
    """Return ``schema`` without prose, and closed wherever its fields are listed."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        pattern = {"pattern": schema["pattern"]} if "pattern" in schema else {}
        return {"type": ["integer", "string"], **pattern}
    made = {key: value for key, value in schema.items() if key in KEPT}
    for key in ("anyOf", "oneOf", "allOf"):
        if key in made:
            made[key] = [{k: v for k, v in each.items() if k in KEPT} for each in made[key]]
    if "items" in made:
        made["items"] = strict(made["items"])
    if isinstance(made.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(made["additionalProperties"])
    if "properties" in made:
        made["properties"] = {name: strict(each) for name, each in made["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


def compact(crd: dict[str, Any], version: dict[str, Any]) -> str:
    """Return the file's text for one version of a definition."""
    group, notes = crd["spec"]["group"], crd["metadata"].get("annotations", {})
    told = {key.split("/")[-1]: value for key, value in notes.items() if "version" in key}
    body = strict(version["schema"]["openAPIV3Schema"])
    body["properties"]["metadata"] = {"type": "object"}
    body["$comment"] = f"{SOURCES[group]} {told}; compacted by tests/charts/schemas/collect.py"
    body["x-scope"] = crd["spec"]["scope"]
    return json.dumps(body, separators=(",", ":"), sort_keys=True) + "\n"


def collect(folder: Path) -> list[str]:
    """Write a schema per kind, of the version that is stored; return the names of the files."""
    written = []
    for path in sorted(folder.glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text()):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
            if (group, kind) not in KINDS:
                continue
            (version,) = (each for each in crd["spec"]["versions"] if each["storage"])
            name = f"{group}_{version['name']}_{kind}.json"
            (HERE / name).write_text(compact(crd, version))
            written.append(name)
    return written


if __name__ == "__main__":
    print("\n".join(collect(Path(sys.argv[1]))))
