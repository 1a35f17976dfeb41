"""values.yaml, its schema and the templates say the same."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from darkroom.catalog import (
    LoraSource,
    Model,
    ModelDefaults,
    ModelLimits,
    ModelOptions,
    Pool,
    Replicas,
)
from darkroom.families import FAMILIES
from tests.charts.helm import CHARTS, ROOT, read

CHART = CHARTS / "darkroom"
KEY = re.compile(r"^( *)([A-Za-z_]\w*):")
PASSED_ON_WHOLE = {
    # By toYaml, or by a helper that is given the map above them.
    "resources", "rollingUpdate", "tolerations", "startup", "readiness", "liveness", "classes",
    "claim", "requests", "limits", "catalog", "probes",
}  # fmt: skip


def values() -> dict[str, Any]:
    return read(CHART / "values.yaml")


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def templates() -> str:
    return "\n".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))


def paths(node: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value, those of maps included; inside of lists nothing is told apart."""
    if at:
        yield at
    if isinstance(node, dict):
        for key, value in node.items():
            yield from paths(value, (*at, key))


def test_a_sentence_stands_above_every_value() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare, inside_list = [], None
    for above, line in zip(["", *lines], lines, strict=False):
        indent = len(line) - len(line.lstrip())
        if inside_list is not None and line.strip() and indent <= inside_list and "- " not in line:
            inside_list = None
        if line.lstrip().startswith("- ") and inside_list is None:
            inside_list = indent - 1
        if inside_list is not None or not KEY.match(line):
            continue
        if not re.fullmatch(r" *# .*[a-z].*\.", above):
            bare.append(line)
    assert not bare


def test_every_value_is_used_by_a_template() -> None:
    text = templates()
    unused = [
        ".".join(path)
        for path in paths(values())
        if not PASSED_ON_WHOLE & set(path)
        and not re.search(rf"\.{re.escape(path[-1])}\b|\"{re.escape(path[-1])}\"", text)
    ]
    assert not unused


def resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        place: Any = root
        for part in node["$ref"].removeprefix("#/").split("/"):
            place = place[part]
        node = place
    return node


def described(node: dict[str, Any], root: dict[str, Any], given: Any) -> Iterator[str]:
    """What the schema names and values.yaml does not have."""
    node = resolved(node, root)
    for name, child in node.get("properties", {}).items():
        if name not in given:
            yield name
        elif isinstance(given[name], dict):
            yield from (f"{name}.{each}" for each in described(child, root, given[name]))


def test_every_value_that_the_schema_knows_has_its_default_in_values_yaml() -> None:
    root = schema()
    absent = set(described(root, root, values()))
    optional = re.compile(r"(.*\.)?(global|resources\.(requests|limits)\.(cpu|ephemeral-storage))$")
    assert not {name for name in absent if not optional.match(name)}


CONDITIONS = {"if", "then", "else", "dependencies"}  # narrow an object that is closed itself


def closed(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for name, child in node.items():
            if name not in CONDITIONS:
                yield from closed(child)
    elif isinstance(node, list):
        for child in node:
            yield from closed(child)


def test_the_schema_lets_no_unknown_value_pass() -> None:
    objects = [node for node in closed(schema()) if isinstance(node.get("properties"), dict)]
    assert len(objects) > 50
    assert all(node["additionalProperties"] is False for node in objects)


def test_the_schema_knows_the_catalog_as_the_code_does() -> None:
    defs = schema()["$defs"]
    same: list[tuple[dict[str, Any], type[BaseModel]]] = [
        (defs["model"], Model),
        (defs["pool"], Pool),
        (defs["model"]["properties"]["defaults"], ModelDefaults),
        (defs["model"]["properties"]["limits"], ModelLimits),
        (defs["model"]["properties"]["options"], ModelOptions),
        (defs["model"]["properties"]["loras"]["items"], LoraSource),
        (defs["pool"]["properties"]["replicas"], Replicas),
    ]
    for node, kind in same:
        assert set(node["properties"]) == set(kind.model_fields), kind.__name__
        needed = {name for name, field in kind.model_fields.items() if field.is_required()}
        assert set(node.get("required", [])) == needed, kind.__name__
    assert set(defs["model"]["properties"]["family"]["enum"]) == set(FAMILIES)


def test_every_value_that_the_documents_name_exists() -> None:
    known = {".".join(path) for path in paths(values())}
    heads = {path.split(".")[0] for path in known}
    text = (ROOT / "docs" / "chart.md").read_text()
    named = {
        name
        for name in re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z]+)+)`", text)
        if name.split(".")[0] in heads and not name.endswith((".md", ".py", ".yaml", ".json"))
    }
    assert len(named) > 20
    assert not named - known
