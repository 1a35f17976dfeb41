"""What the Dockerfiles say, read without building them; test_images.py looks at what they make."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.packaging.dockerfile import faults, is_sent, parse

ROOT = Path(__file__).resolve().parents[2]
TIERS = ["api", "worker"]
EXTRAS = {
    "api": {"api", "azure", "redis", "kubernetes", "cli"},
    "worker": {"worker", "azure", "kubernetes", "cli"},
}


def text_of(tier: str) -> str:
    return (ROOT / tier / "Dockerfile").read_text()


@pytest.mark.parametrize("tier", TIERS)
def test_nothing_is_held_against_a_dockerfile(tier: str) -> None:
    assert faults(text_of(tier)) == []


PLANTED = {
    "root": ("USER 10001:10001", "USER root"),
    "a user by name": ("USER 10001:10001", "USER darkroom"),
    "no user": ("USER 10001:10001\n", ""),
    "a base in the text": ("FROM ${BASE}\n", "FROM docker.io/library/python:3.11\n"),
    "latest": ("python:3.11-slim-bookworm\nARG BUILD", "python:latest\nARG BUILD"),
    "no registry": ("BASE=docker.io/library/python", "BASE=python"),
    "a cache": ("PIP_NO_CACHE_DIR=1 ", ""),
    "no constraints": ("-c constraints.txt -r requirements.txt", "-r requirements.txt"),
    "compiling": ("--only-binary=:all: ", ""),
    "a tool at the end": ("USER 10001", "RUN apt-get install -y curl\nUSER 10001"),
    "the sources": ("USER 10001", "COPY . /src\nUSER 10001"),
    "a whole stage": ("USER 10001", "COPY --from=product / /all\nUSER 10001"),
    "a shell's entry point": ('ENTRYPOINT ["/opt/darkroom/bin/darkroom"]', "ENTRYPOINT darkroom"),
    "bytecode": ("PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1", "PYTHONNOUSERSITE=1"),
    "a secret": ("ARG VERSION=0", "ARG INDEX_TOKEN=abc"),
    "ADD": ("ARG VERSION=0", "ADD https://example.com/x /x"),
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found(tier: str, planted: tuple[str, str]) -> None:
    right, wrong = planted
    text = text_of(tier)
    assert right in text
    assert faults(text.replace(right, wrong))


@pytest.mark.parametrize("tier", TIERS)
def test_an_image_has_the_extras_of_its_tier_alone(tier: str) -> None:
    (generated,) = re.findall(r"' \\\n\s+([a-z ]+) > requirements\.txt", text_of(tier))
    assert set(generated.split()) == EXTRAS[tier]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert EXTRAS[tier] <= project["optional-dependencies"].keys()


def test_both_images_are_made_alike() -> None:
    """One way to build, so that a cure for one is not forgotten for the other."""
    api, worker = (parse(text_of(tier)) for tier in TIERS)
    assert api.arguments == worker.arguments
    assert [(s.base, s.name) for s in api.stages] == [(s.base, s.name) for s in worker.stages]
    for one, other in zip(api.stages[1].instructions, worker.stages[1].instructions, strict=True):
        assert one == other


def test_the_context_is_what_the_wheel_is_made_of() -> None:
    ignore = (ROOT / ".dockerignore").read_text()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sent = {name for name in listed.stdout.split("\0") if name and is_sent(name, ignore)}
    assert {name.split("/")[0] for name in sent} == {
        *("darkroom", "api", "worker", "cli", "models"),
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
    }
    assert "models/catalog.yaml" in sent
    assert "models/demo/pipeline/model_index.json" in sent
    assert "models/demo/train.py" not in sent


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".tools/helm/helm",
        ".cache/demo/jobs.db",
        ".env",
        "api/.env.local",
        "data/queue.db",
        "tests/conftest.py",
        "emulators/azure.py",
        "models/demo/work/half.pt",
        "darkroom/__pycache__/jobs.cpython-311.pyc",
        "api/Dockerfile",
        "infra/terraform.tfstate",
        "node_modules/left/pad.js",
    ],
)
def test_what_a_checkout_holds_besides_stays_out(path: str) -> None:
    assert not is_sent(path, (ROOT / ".dockerignore").read_text())
