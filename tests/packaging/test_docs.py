"""The documents name everything that the code offers, and hold together."""

import ast
import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
import yaml
from prometheus_client import CollectorRegistry

import api.errors
from cli.commands import app
from darkroom.errors import DarkroomError
from darkroom.metrics import ApiMetrics, WebhookMetrics, WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]


def load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load_reference()


def page(name: str) -> str:
    path = ROOT / "docs" / name
    assert path.is_file(), f"docs/{name} is missing"
    return path.read_text()


@pytest.mark.parametrize("name", list(REFERENCE.PAGES))
def test_the_generated_tables_are_those_of_the_code(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text == REFERENCE.renewed(text, REFERENCE.PAGES[name]()), "run `make fix`"


@pytest.mark.parametrize("name", list(REFERENCE.PAGES))
def test_a_table_that_drifted_is_noticed(name: str) -> None:
    text = (ROOT / name).read_text()
    row = next(line for line in reversed(text.splitlines()) if line.startswith("| `"))
    drifted = text.replace(row + "\n", "")
    assert drifted != REFERENCE.renewed(drifted, REFERENCE.PAGES[name]())


def test_every_setting_is_documented_with_its_default() -> None:
    text = page("configuration.md")
    classes = list(REFERENCE.settings_classes())
    assert {kind.__module__.split(".")[0] for kind in classes} == {
        "darkroom",
        "api",
        "worker",
        "cli",
    }
    missing = [
        variable
        for kind in classes
        for name, field in kind.model_fields.items()
        if f"| `{(variable := REFERENCE.variable(kind, name, field))}` |" not in text
    ]
    assert not missing


def test_every_setting_says_what_it_means() -> None:
    silent = [
        f"{kind.__name__}.{name}"
        for kind in REFERENCE.settings_classes()
        for name, field in kind.model_fields.items()
        if not field.description
    ]
    assert not silent


def test_every_metric_is_documented() -> None:
    text = page("metrics.md")
    registry = CollectorRegistry()
    ApiMetrics(registry)
    WorkerMetrics(registry)
    WebhookMetrics(registry)
    names = {metric.name for metric in registry.collect()}
    assert names
    assert not {name for name in names if f"`{name}" not in text}


def test_every_metric_that_the_prose_names_exists() -> None:
    registry = CollectorRegistry()
    ApiMetrics(registry)
    WorkerMetrics(registry)
    WebhookMetrics(registry)
    known = {metric.name for metric in registry.collect()}
    named = set(re.findall(r"\bdarkroom_[a-z_]+", page("metrics.md")))
    suffixes = re.compile(r"_(total|sum|count|bucket)$")
    assert not {name for name in named if suffixes.sub("", name) not in known}


def routes() -> Iterator[tuple[str, str]]:
    document = json.loads((ROOT / "openapi.json").read_text())
    for path, methods in document["paths"].items():
        for method in methods:
            yield method.upper(), path


def test_every_route_is_documented() -> None:
    def bare(text: str) -> str:
        return re.sub(r"\{[^}]*\}", "{}", text)  # whatever the parameter is called

    text = bare(page("api.md"))
    listed = [f"{method} {path}" for method, path in routes()]
    assert listed
    missing = [
        route for route in listed if not re.search(re.escape(bare(route)) + r"(?!\w|/)", text)
    ]
    assert not missing, "docs/api.md must name each as `METHOD /path`"


def error_classes(base: type[DarkroomError] = DarkroomError) -> Iterator[type[DarkroomError]]:
    yield base
    for kind in base.__subclasses__():
        yield from error_classes(kind)


def test_every_error_code_is_documented() -> None:
    text = page("errors.md")
    ours = ("darkroom.", "api.", "worker.")
    codes = {kind.code for kind in error_classes() if kind.__module__.startswith(ours)}
    codes |= set(api.errors.STATUS_BY_CODE)
    assert len(codes) > 20
    assert not {code for code in codes if f"`{code}`" not in text}


def test_every_command_and_option_is_documented() -> None:
    text = page("cli.md")
    missing = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if f"`darkroom {name}" not in text:
            missing.append(name)
        for parameter in command.params:
            flag = parameter.opts[0]
            hidden = getattr(parameter, "hidden", False)
            if (
                flag.startswith("--")
                and not hidden
                and flag not in text.replace("--no-wait", "--wait")
            ):
                missing.append(f"{name} {flag}")
    assert not missing


LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
PATH = re.compile(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|md|yaml|json|toml|txt|hcl|tf))(?:::\w+)?`")


def documents() -> list[Path]:
    """Return every document that is ours: not what was installed or built."""
    folders = ("bench", "charts", "docs", "emulators", "k8s", "models")
    below = [path for folder in folders for path in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *below])


def anchors(text: str) -> set[str]:
    """Return the names that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.M)
    bare = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in bare}


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for path in documents():
        for target, anchor in LINK.findall(path.read_text()):
            to = path.parent / target if target else path
            lost = anchor and to.suffix == ".md" and anchor not in anchors(to.read_text())
            if not to.exists() or lost:
                broken.append(f"{path.relative_to(ROOT)}: {target}#{anchor}")
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    follow = [ROOT / "README.md"]
    while follow:
        path = follow.pop().resolve()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        follow += [path.parent / target for target, _ in LINK.findall(path.read_text()) if target]
        if path == ROOT / "README.md":  # the one link to a folder
            follow += (ROOT / "docs" / "decisions").glob("*.md")
    assert not {str(path) for path in (ROOT / "docs").rglob("*.md")} - {str(p) for p in reached}


def test_every_file_that_the_prose_names_exists() -> None:
    assert not {
        f"{path.relative_to(ROOT)}: {named}"
        for path in documents()
        for named in PATH.findall(FENCED.sub("", path.read_text()))
        if not ((ROOT / named).exists() or (path.parent / named).exists())
    }


def parsed(language: str, body: str) -> None:
    if language in {"sh", "bash"}:
        shell = subprocess.run(["bash", "-n"], input=body, text=True, capture_output=True)
        if shell.returncode:
            raise ValueError(shell.stderr)
    elif language == "yaml":
        list(yaml.safe_load_all(body))
    elif language == "json":
        json.loads(body)
    elif language == "python":
        compile(body, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_parses(path: Path) -> None:
    for language, body in FENCED.findall(path.read_text()):
        parsed(language, body)


@pytest.mark.parametrize(
    ("language", "body"),
    [("sh", "if true; then\n"), ("yaml", "a: [\n"), ("json", "{,}\n"), ("python", "def\n")],
)
def test_an_example_that_does_not_parse_is_noticed(language: str, body: str) -> None:
    with pytest.raises((ValueError, SyntaxError, yaml.YAMLError)):
        parsed(language, body)
