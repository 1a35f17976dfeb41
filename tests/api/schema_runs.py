"""schemathesis over the whole OpenAPI document, every check, with the links between operations.

``python -m tests.api.schema_runs`` is the full run, of `FULL_CASES` cases or more; the suite has a
short one.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.api.credentials import ALL, Keys
from tests.live import live

FULL_CASES = 3_000
FULL_EXAMPLES = 80
ERASED_STAYS = """
[checks.use_after_free]
enabled = false
"""
"""DELETE erases what a job held and keeps its accounting, so that the job can still be read."""
CONFIGURATION = ERASED_STAYS + "\n".join(
    f"""
[[operations]]
include-name = "{name}"
[operations.checks.positive_data_acceptance]
enabled = false
"""
    for name in (
        "POST /v1/jobs",
        "POST /v1/images/generations",
        "POST /api/generate",
        "GET /api/generate",
        "GET /v1/jobs",
        "GET /v1/usage",
        "GET /v1/dead-letters",
    )
)
"""What a schema cannot say: a model's own limits and name, a cursor, one moment before another, a
pool of the catalog. There a valid request may be refused; every other check holds for them too."""
_CASES = re.compile(r"(\d[\d,]*) generated")


@dataclass(frozen=True)
class Outcome:
    """What a run said; ``cases`` is how many it tried."""

    passed: bool
    cases: int
    output: str


def run(folder: Path, max_examples: int, seconds: float, *options: str) -> Outcome:
    """Serve with a worker under ``folder`` and try ``max_examples`` per operation."""
    keys = Keys(folder / "keys.yaml")
    key = keys.add("tester", roles=ALL)
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    settings = {
        "auth": "api_keys",
        "keys_file": keys.path,
        "sync_wait_seconds": 20.0,
        "requests_per_minute": 0,
        "max_queued_jobs": 0,
        "max_queued_gpu_seconds": 0,
    }
    with live(folder, **settings) as server:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                f"{server.url}/openapi.json",
                f"--header=Authorization: Bearer {key}",
                f"--max-examples={max_examples}",
                "--request-timeout=70",
                "--generation-deterministic",
                "--no-color",
                *options,
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    output = done.stdout + done.stderr
    counted = _CASES.search(output)
    cases = int(counted[1].replace(",", "")) if counted else 0
    return Outcome(done.returncode == 0, cases, output)


def main() -> int:
    """Do the full run; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), FULL_EXAMPLES, 3_600)
    sys.stdout.write(outcome.output[-20_000:])
    enough = outcome.cases >= FULL_CASES
    summary = {"cases": outcome.cases, "least": FULL_CASES, "passed": outcome.passed and enough}
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if outcome.passed and enough else 1


if __name__ == "__main__":
    sys.exit(main())
