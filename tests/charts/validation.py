"""Validates objects as an API server would: Kubernetes' own schemas, and those of the CRDs.

Strict: a field that the schema does not know is an error, as it is for a server-side apply.
"""

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
from kubernetes_validate.utils import all_versions, major_minor
from referencing import Registry, Resource

from tests.charts.helm import Object

MINORS = ("1.33", "1.35", "1.37")
SCHEMAS = Path(__file__).with_name("schemas")
UNCHECKED = {"alb.networking.azure.io/v1"}  # its controller publishes no definitions apart


@cache
def _folder(minor: str) -> Any:
    version = next(each for each in all_versions() if major_minor(each) == minor)
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"


@cache
def _definitions(minor: str) -> Registry[Any]:
    contents = json.loads((_folder(minor) / "_definitions.json").read_text())
    registry: Registry[Any] = Resource.from_contents(contents) @ Registry()
    return registry


@cache
def _core(kind: str, api_version: str, minor: str) -> jsonschema.Draft202012Validator:
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((_folder(minor) / f"{kind.lower()}-{name}.json").read_text())
    registry = Resource.from_contents(schema) @ _definitions(minor)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _custom(kind: str, api_version: str) -> jsonschema.Draft202012Validator | None:
    path = SCHEMAS / f"{api_version.replace('/', '_')}_{kind}.json"
    if not path.is_file():
        return None
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def scope(each: Object) -> str:
    """Return Namespaced or Cluster."""
    custom = _custom(each["kind"], each["apiVersion"])
    if custom is not None:
        return str(custom.schema["x-scope"])
    return "Cluster" if each["kind"] in CLUSTER_KINDS else "Namespaced"


CLUSTER_KINDS = {
    "Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "PersistentVolume",
    "StorageClass",
}  # fmt: skip


def problems(each: Object, minors: tuple[str, ...] = MINORS) -> list[str]:
    """Return what an API server of any of these versions would refuse in an object."""
    kind, api_version = each["kind"], each["apiVersion"]
    if api_version in UNCHECKED:
        return []
    custom = _custom(kind, api_version)
    checks = [("CRD", custom)] if custom else [(m, _core(kind, api_version, m)) for m in minors]
    where = f"{kind}/{each['metadata']['name']}"
    return [
        f"{where} ({version}): {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for version, check in checks
        for error in check.iter_errors(each)
    ]
