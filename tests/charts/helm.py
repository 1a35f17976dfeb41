"""Runs the real helm on the charts of this repository, each rendering once."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML without merge keys, and takes no key that stands twice: nor does an API server."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return one map. Raises `ValueError`."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"{', '.join(twice)} twice, {node.start_mark}")
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


Object = dict[str, Any]


class Refused(Exception):
    """Helm did not render: its message."""


@cache
def helm() -> str:
    """Return the path of a helm."""
    found = subprocess.run([ROOT / ".ci" / "helm"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def run(*arguments: str | Path) -> str:
    """Return what helm prints. Raises `Refused` with what it says on standard error."""
    done = subprocess.run(
        ["env", "GOGC=off", "GOMAXPROCS=1", helm(), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Refused(done.stderr or done.stdout)
    return done.stdout


def scenarios(chart: str) -> dict[str, Path]:
    """Return the value files in the chart's ci/, by name."""
    files = sorted((CHARTS / chart / "ci").glob("*-values.yaml"))
    return {path.name.removesuffix("-values.yaml"): path for path in files}


def read(path: Path) -> Object:
    """Return a YAML file's one document."""
    loaded: Object = yaml.load(path.read_text(), Loader=Loader)
    return loaded


@cache
def text(
    chart: str,
    values_json: str,
    scenario: str | None = None,
    release: str = "darkroom",
    namespace: str = "darkroom",
) -> str:
    """Return `helm template` of a chart with a scenario and, over it, values as JSON."""
    files: list[str | Path] = []
    if scenario is not None:
        files += ["-f", scenarios(chart)[scenario]]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as extra:
        extra.write(values_json)
        extra.flush()
        return run("template", release, CHARTS / chart, "-n", namespace, *files, "-f", extra.name)


@cache
def _parsed(rendered: str) -> str:
    return json.dumps(list(yaml.load_all(rendered, Loader=Loader)))


def render(
    chart: str,
    values: Mapping[str, Any] | None = None,
    *,
    scenario: str | None = None,
    release: str = "darkroom",
    namespace: str = "darkroom",
) -> list[Object]:
    """Return the objects that the chart makes. Raises `Refused`."""
    rendered = text(chart, json.dumps(values or {}, sort_keys=True), scenario, release, namespace)
    return [each for each in json.loads(_parsed(rendered)) if each]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Return the objects of these kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """Return one object."""
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def pods(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Return every pod that comes of ``objects``: the object, and the pod's metadata and spec."""
    for each in objects:
        match each["kind"]:
            case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
                yield each, each["spec"]["template"]
            case "ScaledJob":
                yield each, each["spec"]["jobTargetRef"]["template"]
            case "PodTemplate":
                yield each, each["template"]
            case "Pod":
                yield each, each


def containers(pod: Object) -> list[Object]:
    """Return a pod's containers, those of its start included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
