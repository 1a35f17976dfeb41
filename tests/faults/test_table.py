"""docs/chaos.md names every fault that the chaos run can inject, with a test that exists."""

import ast
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import faults
from bench.chaos import LEASE_SECONDS, MAX_DELIVERIES, Run
from bench.chaos_azure import AzureBackends
from bench.chaos_embedded import EmbeddedBackends

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([a-z_]+)` \|.*\| `(tests/[\w/]+\.py)::(\w+)` \|$", re.MULTILINE)


def table() -> dict[str, tuple[Path, str]]:
    text = (ROOT / "docs" / "chaos.md").read_text()
    return {kind: (ROOT / file, test) for kind, file, test in ROW.findall(text)}


def kinds(folder: Path) -> set[str]:
    """Ask the run itself, on each kind of backend."""
    found = {*faults.KINDS, "poison"}
    stack: Any = SimpleNamespace()
    backends: tuple[Any, ...] = (
        EmbeddedBackends(folder),
        AzureBackends(folder, LEASE_SECONDS, MAX_DELIVERIES),
    )
    for backend in backends:
        inside: Any = SimpleNamespace(queues={"chaos": None})
        found |= set(Run(stack, inside, random.Random(1), 1, backend).actions())
    return found


def test_every_kind_of_fault_is_in_the_table(tmp_path: Path) -> None:
    assert set(table()) == kinds(tmp_path)
    assert len(table()) == 14


@pytest.mark.parametrize("kind", sorted(table()))
def test_its_test_exists_and_says_what_it_guards(kind: str) -> None:
    file, name = table()[kind]
    functions = {
        node.name: ast.get_docstring(node) or ""
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    }
    said = " ".join(functions[name].split())
    assert "Guards " in said
    assert "makes this fail; tried" in said
