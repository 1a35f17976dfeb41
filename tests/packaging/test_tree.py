"""What is committed: consistent versions, nothing of one machine."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from darkroom import __version__

ROOT = Path(__file__).resolve().parents[2]
TEXT_LIMIT_BYTES = 2_000_000


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def texts() -> dict[str, str]:
    found = {}
    for path in tracked():
        if not path.is_file() or path.stat().st_size > TEXT_LIMIT_BYTES:
            continue
        body = path.read_bytes()
        if b"\0" not in body:
            found[str(path.relative_to(ROOT))] = body.decode(errors="replace")
    return found


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# Written in halves, so that this file does not match itself.
OF_ONE_MACHINE = "|".join(
    [
        r"(?<![\w.])/" + r"work/",
        r"(?<![\w.])/" + r"root/",
        r"(?<![\w.])/" + r"opt/(?!venv|darkroom)",
        "/tmp/" + "team",
        r"\.\./" + "shared",
        r"\." + "library",
    ]
)
REGISTRIES = r"\b(files\.)?python" + r"hosted\.org|\bpypi\." + r"org|\bnpm" + r"js\.(org|com)"


@pytest.mark.parametrize("pattern", [OF_ONE_MACHINE, REGISTRIES], ids=["paths", "registries"])
def test_no_tracked_file_names_one_machine_or_a_registry(pattern: str) -> None:
    named = re.compile(pattern)
    assert not {
        name: match[0]
        for name, text in texts().items()
        if (match := named.search(text)) is not None
    }


def test_no_tracked_file_leaves_work_for_later() -> None:
    later = re.compile(
        r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|NotImplemented" + "Error"
    )
    code = {name: text for name, text in texts().items() if name.endswith((".py", ".js", ".css"))}
    assert not {name for name, text in code.items() if later.search(text)}


def test_one_version_everywhere() -> None:
    assert project()["version"] == __version__
    document = json.loads((ROOT / "openapi.json").read_text())
    assert document["info"]["version"] == __version__


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    loose = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[^\s=]+", line)]
    assert not loose, "every constraint is an exact version"
    return {name(line): line.split("==")[1] for line in pins}


def name(requirement: str) -> str:
    bare = re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", bare).lower()


def test_every_dependency_is_pinned() -> None:
    declared: list[str] = list(project()["dependencies"])  # type: ignore[call-overload]
    for extra in project()["optional-dependencies"].values():  # type: ignore[attr-defined]
        declared += extra
    wanted = {name(requirement) for requirement in declared} - {"darkroom"}
    assert not wanted - pinned().keys()


def test_no_pin_ties_the_project_to_one_kind_of_machine() -> None:
    assert not {
        pin: version
        for pin, version in pinned().items()
        if pin.startswith(("nvidia-cu", "triton")) or "+" in version
    }


def test_ci_calls_the_targets_that_people_call() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: .ci/run" in workflow
    run = (ROOT / ".ci" / "run").read_text()
    assert "\nmake lint\n" in run
    assert "\nmake test" in run
