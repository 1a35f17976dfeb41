"""The API keeps to its OpenAPI document, whatever is sent: the short run of `schema_runs`."""

from pathlib import Path

import pytest

from tests.api.schema_runs import run

CASES = 300


@pytest.mark.timeout(300)
def test_no_case_leaves_the_document(tmp_path: Path) -> None:
    outcome = run(tmp_path, 2, 240, "--phases=coverage,fuzzing,stateful")
    assert outcome.cases >= CASES, outcome.output[-4_000:]
    assert outcome.passed, outcome.output[-20_000:]
