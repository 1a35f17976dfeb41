"""What CI's workflows may do, and whose code they run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Any:
    return yaml.safe_load(request.param.read_text())


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def test_every_action_is_pinned_by_commit(workflow: Any) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert not [one for one in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", one)]


def test_nothing_is_allowed_to_all_jobs_but_reading(workflow: Any) -> None:
    assert workflow["permissions"] in ({}, {"contents": "read"})


def test_no_checkout_leaves_its_token_behind(workflow: Any) -> None:
    checkouts = [step for step in steps(workflow) if "/checkout@" in step.get("uses", "")]
    assert not [step for step in checkouts if step["with"]["persist-credentials"] is not False]


def test_no_command_is_put_together_from_what_others_may_write(workflow: Any) -> None:
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert not [command for command in commands if "${{" in command]


def test_ci_builds_both_images() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = ci["jobs"]["images"]
    assert job["strategy"]["matrix"]["tier"] == ["api", "worker"]
    (build,) = (step["run"] for step in job["steps"] if "buildx build" in step.get("run", ""))
    assert '--file "$TIER/Dockerfile"' in build
    assert '"BASE=$BASE@$digest"' in build
