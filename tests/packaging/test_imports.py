"""What the processes really load, and what they say when an extra is not installed."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
TENSORS = {"torch", "diffusers", "transformers", "accelerate", "safetensors"}
TELL = """
import atexit, json, sys
atexit.register(lambda: print("MODULES " + json.dumps(sorted(sys.modules)), flush=True))
"""


def environment(folder: Path, **variables: str) -> dict[str, str]:
    ours = {name: text for name, text in os.environ.items() if not name.startswith("DARKROOM_")}  # noqa: TID251
    return {
        **ours,
        "PYTHONPATH": str(ROOT),
        "DARKROOM_QUEUE_URL": f"sqlite:///{folder / 'queue.db'}",
        "DARKROOM_JOBSTORE_URL": f"sqlite:///{folder / 'jobs.db'}",
        "DARKROOM_IMAGESTORE_URL": f"file:///{folder / 'images'}",
        "DARKROOM_API_PORT": "0",
        **variables,
    }


def modules_in(output: str) -> set[str]:
    told = next(line for line in output.splitlines() if line.startswith("MODULES "))
    return set(json.loads(told.removeprefix("MODULES ")))


class Api:
    """A real API process, started by ``code``; usable as soon as it is constructed."""

    def __init__(self, code: str, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=variables,
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if found := re.search(r'"url": "(http://[^"]+)".*"listening"', line):
                self.url = found[1]
                return
        raise AssertionError("".join(said))

    def submit(self) -> int:
        request = urllib.request.Request(
            f"{self.url}/v1/jobs",
            data=json.dumps({"prompt": "a lighthouse"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=30)
        return output


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The modules of an API process that admitted a job, and of the command that submitted it."""
    folder = tmp_path_factory.mktemp("served")
    api = Api(TELL + "from api.wiring import serve; sys.exit(serve())", environment(folder))
    command = TELL + "from cli.main import main; main(['submit', 'a lighthouse', '--no-wait'])"
    submitted = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        env=environment(folder, DARKROOM_URL=api.url),
    )
    output = api.stop()
    assert submitted.returncode == 0, submitted.stderr
    return modules_in(output), modules_in(submitted.stdout)


def test_the_api_process_has_loaded_no_tensors(served: tuple[set[str], set[str]]) -> None:
    assert "fastapi" in served[0]
    assert not served[0] & TENSORS


def test_the_command_has_loaded_no_tensors(served: tuple[set[str], set[str]]) -> None:
    assert "httpx" in served[1]
    assert not served[1] & (TENSORS | {"fastapi", "uvicorn"})


def test_help_loads_nothing_heavy() -> None:
    code = TELL + "from cli.main import main; main(['--help'])"
    helped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert helped.returncode == 0, helped.stderr
    heavy = TENSORS | {"httpx", "fastapi", "uvicorn", "pydantic", "asyncio", "rich.progress"}
    assert not modules_in(helped.stdout) & heavy


def distributions_of(extra: str) -> set[str]:
    """Everything that `pip install darkroom[extra]` brings, from what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][extra]]
    found: set[tuple[str, str]] = set()
    while waiting:
        asked = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", asked.name).lower()
        for wanted in {"", *asked.extras}:
            if (name, wanted) in found:
                continue
            found.add((name, wanted))
            try:
                further = requires(name) or []
            except PackageNotFoundError:
                continue  # for another platform
            waiting += [
                one
                for one in further
                if (marker := Requirement(one).marker) is None or marker.evaluate({"extra": wanted})
            ]
    return {name for name, _ in found}


BLOCKER = """
import json, pathlib, sys

BLOCKED = frozenset(json.loads(pathlib.Path(__file__).with_name("blocked.json").read_text()))


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def only_api(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that hides every package that the extra ``api`` does not bring."""
    folder = tmp_path_factory.mktemp("only-api")
    brought = distributions_of("api")
    ours = {"darkroom", "api", "worker", "cli", "emulators"}
    hidden = [
        package
        for package, owners in packages_distributions().items()
        if package not in ours
        and not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & brought
    ]
    assert {"torch", "typer", "httpx", "azure"} <= set(hidden)
    (folder / "blocked.json").write_text(json.dumps(hidden))
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return folder


def only_api_environment(only_api: Path, folder: Path, **variables: str) -> dict[str, str]:
    return environment(folder, PYTHONPATH=f"{only_api}{os.pathsep}{ROOT}", **variables)


def test_with_the_api_extra_alone_the_api_serves(only_api: Path, tmp_path: Path) -> None:
    code = "import sys; from cli.main import main; main(['api'])"
    api = Api(code, only_api_environment(only_api, tmp_path))
    try:
        assert api.submit() == 202
    finally:
        api.stop()
    assert api.process.returncode == 0


@pytest.mark.parametrize(
    ("module", "words", "variables", "extra"),
    [
        ("cli", ["list"], {}, "cli"),
        ("cli", ["--help"], {}, "cli"),
        ("cli", ["worker"], {}, "worker"),
        ("api", [], {"DARKROOM_QUEUE_URL": "servicebus://somewhere"}, "azure"),
        ("api", [], {"DARKROOM_JOBSTORE_URL": "aztables://somewhere"}, "azure"),
        ("api", [], {"DARKROOM_IMAGESTORE_URL": "azblob://somewhere/images"}, "azure"),
    ],
)
def test_what_needs_another_extra_names_it(
    only_api: Path,
    tmp_path: Path,
    module: str,
    words: list[str],
    variables: dict[str, str],
    extra: str,
) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=only_api_environment(only_api, tmp_path, **variables),
    )
    assert refused.returncode != 0
    assert f"pip install 'darkroom[{extra}]'" in refused.stderr
    assert "Traceback" not in refused.stderr
