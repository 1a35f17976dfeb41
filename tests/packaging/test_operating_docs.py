"""What operators are told to type and to look for exists: commands, values, names, pages."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from prometheus_client import CollectorRegistry

from cli.commands import app
from darkroom.metrics import ApiMetrics, WebhookMetrics, WorkerMetrics
from tests.charts import helm
from tests.packaging.test_docs import REFERENCE

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RUNBOOK = DOCS / "runbook"
CHART = ROOT / "charts" / "darkroom"
RULES = ROOT / "charts" / "gpu-observability" / "rules" / "darkroom.rules.yaml"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
OPERATORS = sorted(
    path.relative_to(DOCS).as_posix() for path in [*RUNBOOK.glob("*.md"), DOCS / "install.md"]
)
ENTRIES = [
    "bad-gateway",
    "cuda-out-of-memory",
    "dead-letters",
    "gpu-quota",
    "image-pull-timeout",
    "scale-in",
    "slow-first-request",
    "slow-generation",
    "spot-eviction",
    "stuck-queue",
]
OF_OTHERS = {"max_count", "min_count", "gpu_instance", "scale_down_mode", "spot_max_price"}
"""Terraform's words for node pools."""


def text_of(page: str) -> str:
    return (DOCS / page).read_text()


def blocks(page: str, *languages: str) -> Iterator[str]:
    """Return the fenced blocks of these languages."""
    for language, body in re.findall(r"^```(\w+)\n(.*?)^```", text_of(page), re.M | re.S):
        if language in languages:
            yield body


def quoted(page: str) -> set[str]:
    """Return what stands between single backticks outside of blocks."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    return set(re.findall(r"`([^`\n]+)`", prose))


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_series_and_variable_that_a_page_names_exists(page: str) -> None:
    registry = CollectorRegistry()
    for kind in (ApiMetrics, WorkerMetrics, WebhookMetrics):
        kind(registry)
    series = {metric.name for metric in registry.collect()}
    bare = re.compile(r"_(total|sum|count|bucket)$")
    named = set(re.findall(r"\bdarkroom_[a-z_]+(?![a-z_]*\*)", text_of(page)))
    assert not {name for name in named if bare.sub("", name) not in series}
    variables = {
        REFERENCE.variable(kind, name, field)
        for kind in REFERENCE.settings_classes()
        for name, field in kind.model_fields.items()
    }
    told = set(re.findall(r"\bDARKROOM_[A-Z_]+[A-Z]\b", text_of(page)))
    assert not told - variables


def test_every_alert_leads_to_a_page_that_names_it() -> None:
    alerts = {rule["alert"]: rule["annotations"]["runbook"] for rule in rules() if "alert" in rule}
    assert len(alerts) > 10
    assert not [name for name, page in alerts.items() if f"`{name}`" not in _read(ROOT / page)]


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


@pytest.mark.parametrize("page", OPERATORS)
def test_every_alert_and_recording_that_a_page_names_exists(page: str) -> None:
    known = {rule.get("alert") or rule["record"] for rule in rules()}
    named = {word for word in quoted(page) if re.fullmatch(r"Darkroom[A-Z]\w+", word)}
    named |= set(re.findall(r"\bdarkroom:\w+:\w+", text_of(page)))
    assert not named - known


def test_the_runbook_has_its_entries_and_an_index() -> None:
    index = text_of("runbook/README.md")
    pages = {path.stem for path in RUNBOOK.glob("*.md")} - {"README"}
    assert set(ENTRIES) <= pages
    assert not {page for page in pages if f"({page}.md)" not in index}


@pytest.mark.parametrize("entry", [one for one in ENTRIES if one != "dead-letters"])
def test_an_entry_says_what_is_seen_where_to_look_why_and_what_prevents(entry: str) -> None:
    headings = re.findall(r"^## (.+)$", text_of(f"runbook/{entry}.md"), re.M)
    assert headings == ["Seen", "Look", "Why, and the cure", "Prevent"]


@pytest.mark.parametrize("page", OPERATORS)
def test_every_word_of_ours_that_a_page_quotes_is_in_the_code(page: str) -> None:
    """Log events, fields of the catalog and of answers: all have an underscore."""
    sources = [*ROOT.glob("[acdkw]*/**/*.py"), *CHART.rglob("*.yaml"), *CHART.rglob("*.tpl")]
    code = "\n".join(path.read_text() for path in sources)
    words = {word for word in quoted(page) if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    words = {word for word in words if not word.startswith(("darkroom_", "keda_"))}
    assert not {word for word in words - OF_OTHERS if not re.search(rf"\b{word}\b", code)}


def value_paths() -> set[str]:
    def below(values: Any, path: str) -> Iterator[str]:
        yield path
        for key, value in values.items() if isinstance(values, dict) else ():
            yield from below(value, f"{path}.{key}" if path else key)

    return set(below(helm.read(CHART / "values.yaml"), ""))


@pytest.mark.parametrize("page", OPERATORS)
def test_every_value_that_a_page_names_is_a_value_of_the_chart(page: str) -> None:
    known = value_paths()
    tops = {path for path in known if "." not in path}
    pattern = re.compile(r"([a-zA-Z]+)((?:\.[a-zA-Z]+)+)")
    named = {word for word in quoted(page) if (m := pattern.fullmatch(word)) and m[1] in tops}
    assert not named - known


@pytest.mark.parametrize("page", OPERATORS)
def test_every_command_is_one_for_a_shell(page: str) -> None:
    for block in blocks(page, "sh"):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert not checked.returncode, f"{checked.stderr}{block}"


@pytest.mark.parametrize("page", OPERATORS)
def test_every_darkroom_command_has_its_options(page: str) -> None:
    for line in commands(page, "darkroom"):
        words = [word for word in shlex.split(line) if word not in ("&", "\\")]
        command = typer.main.get_command(app)
        rest = words[1:]
        while rest and hasattr(command, "commands"):
            assert rest[0] in command.commands, line
            command, rest = command.commands[rest[0]], rest[1:]
        options = {name for parameter in command.params for name in parameter.opts}
        assert not [word for word in rest if word.startswith("--") and word not in options], line


@pytest.mark.parametrize("page", OPERATORS)
def test_every_folder_and_file_that_a_command_takes_is_there(page: str) -> None:
    for line in [*commands(page, "helm"), *commands(page, "kubectl")]:
        for word in shlex.split(line):
            if word.startswith(("charts/", "k8s/")):
                assert (ROOT / word).exists(), line


def commands(page: str, program: str) -> Iterator[str]:
    """Return the command lines that begin with ``program``."""
    for block in blocks(page, "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            bare = line.removeprefix("$ ").split("  #")[0].strip()
            if bare.split(" ", 1)[0] == program:
                yield bare


def test_the_values_of_the_installation_render(tmp_path: Path) -> None:
    found = re.findall(
        r"<!-- values: (\S+) -->\n```yaml\n(.*?)^```", text_of("install.md"), re.M | re.S
    )
    assert [name for name, _ in found] == ["darkroom-values.yaml"]
    (tmp_path / "values.yaml").write_text(found[0][1])
    rendered = helm.run(
        "template", "darkroom", CHART, "-n", "darkroom", "-f", tmp_path / "values.yaml"
    )
    objects = [each for each in yaml.load_all(rendered, Loader=helm.Loader) if each]
    kinds = {each["kind"] for each in objects}
    assert {"Deployment", "ScaledObject", "NetworkPolicy", "ServiceAccount"} <= kinds
    # What the page says in words and commands is what is rendered.
    accounts = {
        f"{each['metadata']['namespace']}:{each['metadata']['name']}"
        for each in helm.of_kind(objects, "ServiceAccount")
    }
    page = text_of("install.md").replace("$NS", "darkroom").replace("$WORKERS", "darkroom-workers")
    assert not {account for account in accounts if account not in page}
    services = {each["metadata"]["name"] for each in helm.of_kind(objects, "Service")}
    assert "darkroom-api" in services


def test_the_queues_are_made_with_the_limits_of_the_settings() -> None:
    values = helm.read(CHART / "values.yaml")
    page = text_of("install.md")
    pools = " ".join(pool["name"] for pool in values["catalog"]["pools"])
    assert f"for pool in {pools}; do" in page
    limit = values["queue"]["maxDeliveryCount"] + 1
    assert f"--name $pool \\\n    --lock-duration PT1M --max-delivery-count {limit}" in page
    assert values["queue"]["leaseSeconds"] == 60


@pytest.mark.parametrize("page", OPERATORS)
def test_every_row_of_a_table_has_the_cells_of_its_head(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    for table in re.findall(r"(?:^\|.*\n)+", prose, re.M):
        cells = {len(re.split(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, table
