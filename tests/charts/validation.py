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

from tests.charts.admission import refusals
from tests.charts.helm import Object, containers, pods

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


SUFFIXES = {"": 1, "m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: str | int) -> float:
    """Return a quantity as Kubernetes reads it: cores, or bytes."""
    match = re.fullmatch(r"(\d+)([A-Za-z]*)", str(quantity))
    assert match is not None, quantity
    return int(match[1]) * SUFFIXES[match[2]]


def beyond_schemas(each: Object) -> list[str]:
    """Return what an API server refuses in pods although their schema allows it.

    Source: validation of core/v1 in Kubernetes: names stand once, requests are at most limits,
    extended resources are the same in both, a pause before the end fits into the grace period.
    """
    found = []
    for _, pod in pods([each]):
        spec = pod["spec"]
        grace = spec.get("terminationGracePeriodSeconds", 30)
        for container in containers(pod):
            name, resources = container["name"], container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            found += [
                f"{name} asks for more {what} than it may use"
                for what in requests.keys() & limits
                if amount(requests[what]) > amount(limits[what])
            ]
            devices = {what for what in requests.keys() | limits if "/" in what}
            found += [f"{name}: {what}" for what in devices if requests[what] != limits[what]]
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
            if pause.get("seconds", 0) > grace:
                found.append(f"{name} pauses for longer than the grace period")
            for field in ("env", "volumeMounts", "ports"):
                key = {"volumeMounts": "mountPath"}.get(field, "name")
                listed = [one[key] for one in container.get(field, [])]
                found += [f"{name}: {one} twice" for one in set(listed) if listed.count(one) > 1]
    return found


def problems(each: Object, minors: tuple[str, ...] = MINORS) -> list[str]:
    """Return what an API server of any of these versions would refuse in an object."""
    kind, api_version = each["kind"], each["apiVersion"]
    if api_version in UNCHECKED:
        return []
    custom = _custom(kind, api_version)
    checks = [("CRD", custom)] if custom else [(m, _core(kind, api_version, m)) for m in minors]
    where = f"{kind}/{each['metadata']['name']}"
    found = [f"{where}: {problem}" for problem in [*beyond_schemas(each), *refusals(each)]]
    return found + [
        f"{where} ({version}): {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for version, check in checks
        for error in check.iter_errors(each)
    ]
