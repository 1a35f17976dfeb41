"""Write what this chart carries as data: the dashboards, and the rules in Azure's form.

    python charts/gpu-observability/dashboards/generate.py --write
    python charts/gpu-observability/dashboards/generate.py --check

`--check` says what differs from the committed files, and exits 1. A test runs it.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from azure_rules import template
from gpu import gpu
from jobs import jobs
from panels import Json

CHART = Path(__file__).resolve().parent.parent


def documents() -> Iterator[tuple[Path, Json]]:
    """Yield each generated file with its content."""
    yield CHART / "dashboards" / "gpu.json", gpu()
    yield CHART / "dashboards" / "jobs.json", jobs()
    rules = yaml.safe_load((CHART / "rules" / "darkroom.rules.yaml").read_text())
    yield CHART / "rules" / "azure-rule-groups.json", template(rules["groups"])


def main() -> int:
    """Check or write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true")
    choice.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    drifted = []
    for path, content in documents():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        if write:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            drifted.append(path.name)
    if drifted:
        print(f"differs from what generate.py writes: {', '.join(drifted)}", file=sys.stderr)
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
