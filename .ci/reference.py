"""Keep the generated tables of docs/ true to the code: settings and metrics.

The tables stand between markers in docs/configuration.md and docs/metrics.md; the prose around
them is written by hand. `--check` says what has drifted and exits 1; `--write` repairs it.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import getmembers, isclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

ROOT = Path(__file__).resolve().parent.parent
SETTINGS_MODULES = (
    "darkroom.settings",
    "api.settings",
    "api.webhooks.settings",
    "worker.settings",
    "cli.settings",
)


def settings_classes() -> Iterator[type[BaseSettings]]:
    """Yield every settings class of the product, each once, in the order of the modules."""
    for name in SETTINGS_MODULES:
        module = import_module(name)
        for _, kind in getmembers(module, isclass):
            if issubclass(kind, BaseSettings) and kind.__module__ == name:
                yield kind


def variable(kind: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """Return the environment variable that sets a field."""
    if isinstance(field.validation_alias, str):
        return field.validation_alias.upper()
    return f"{kind.model_config.get('env_prefix', '')}{name}".upper()


def default(field: FieldInfo) -> str:
    """Return how the default is shown: paths relative to the package, secrets as unset."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None or value == "" or isinstance(value, SecretStr):
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        return f"`{value.relative_to(ROOT)}`"
    return f"`{value}`"


def own_fields(kind: type[BaseSettings]) -> dict[str, FieldInfo]:
    """Return the fields that the class does not inherit from another settings class."""
    inherited = {
        name
        for base in kind.__mro__[1:]
        if issubclass(base, BaseSettings)
        for name in base.model_fields
    }
    fields = kind.model_fields
    return {name: field for name, field in fields.items() if name not in inherited}


def configuration() -> str:
    """Return a section with a table for each settings class."""
    sections = []
    for kind in settings_classes():
        rows = [
            f"| `{variable(kind, name, field)}` | {default(field)} | {_cell(field.description)} |"
            for name, field in own_fields(kind).items()
        ]
        if rows:
            intro = _cell((kind.__doc__ or "").split("\n\n")[0])
            head = [f"### `{kind.__module__}.{kind.__name__}`", "", intro, ""]
            table = ["| variable | default | meaning |", "|---|---|---|", *rows]
            sections.append("\n".join([*head, *table]))
    return "\n\n".join(sections)


def metrics() -> str:
    """Return one table of every series in `darkroom.metrics`."""
    module = import_module("darkroom.metrics")
    rows = []
    for name, kind in getmembers(module, isclass):
        if kind.__module__ != "darkroom.metrics":
            continue
        registry = CollectorRegistry()
        series = vars(kind(registry))  # type: ignore[call-arg]
        for metric in series.values():
            if not isinstance(metric, MetricWrapperBase):
                continue
            for described in metric.describe():
                labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "none"
                suffix = "_total" if described.type == "counter" else ""
                rows.append(
                    f"| `{described.name}{suffix}` | {described.type} | {labels} "
                    f"| {name.removesuffix('Metrics').lower()} | {_cell(described.documentation)} |"
                )
    head = ["| series | type | labels | exposed by | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _cell(text: str | None) -> str:
    return " ".join((text or "").replace("|", "\\|").split())


PAGES: dict[str, Callable[[], str]] = {
    "docs/configuration.md": configuration,
    "docs/metrics.md": metrics,
}


def renewed(page: str, table: str) -> str:
    """Return ``page`` with what stands between its markers replaced by ``table``."""
    pattern = re.compile(r"(<!-- generated[^>]*-->\n).*?(\n<!-- /generated -->)", re.S)
    if not pattern.search(page):
        raise SystemExit("a page lacks its <!-- generated --> markers")
    return pattern.sub(lambda match: f"{match[1]}\n{table}\n{match[2]}", page)


def main() -> int:
    """Check or write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true")
    choice.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    drifted = []
    for name, table in PAGES.items():
        path = ROOT / name
        page = path.read_text()
        wanted = renewed(page, table())
        if page != wanted and write:
            path.write_text(wanted)
        elif page != wanted:
            drifted.append(name)
    if drifted:
        print(f"drifted from the code: {', '.join(drifted)}; run `make fix`", file=sys.stderr)
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
