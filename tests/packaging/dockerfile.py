"""Dockerfiles as values, and what we hold against one: checks of our own."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

BUILD_TOOLS = re.compile(
    r"\b(apt-get|apk|dnf|tdnf|yum|gcc|g\+\+|make|cmake|curl|wget|git|pip install|pip wheel)\b"
)


@dataclass
class Stage:
    """One ``FROM`` and the instructions below it, as (word, rest of the line) pairs."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for kind, rest in self.instructions if kind == word]


@dataclass
class Dockerfile:
    """The arguments before the first stage, with their defaults, and the stages."""

    arguments: dict[str, str]
    stages: list[Stage]


def parse(text: str) -> Dockerfile:
    joined = re.sub(r"\\\n", "", "\n".join(_without_comments(text)))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        word, rest = word.upper(), " ".join(rest.split())
        if word == "FROM":
            base, _, name = re.sub(r"--\S+ ", "", rest).partition(" AS ")
            stages.append(Stage(base, name))
        elif stages:
            stages[-1].instructions.append((word, rest))
        else:
            assert word == "ARG", f"{word} before the first stage"
            argument, _, default = rest.partition("=")
            arguments[argument] = default
    return Dockerfile(arguments, stages)


def _without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def faults(text: str) -> list[str]:
    """Return what is wrong with a Dockerfile of ours, a line each; none when all is right."""
    file = parse(text)
    return [*_of_the_bases(file), *_of_the_builds(file), *_of_the_last(file.stages[-1])]


def _of_the_bases(file: Dockerfile) -> list[str]:
    found: list[str] = []
    names = {stage.name for stage in file.stages}
    found += [
        f"FROM {stage.base}: a base is given by an argument"
        for stage in file.stages
        if stage.base not in names and not re.fullmatch(r"\$\{\w+\}", stage.base)
    ]
    for name, default in file.arguments.items():
        image = PurePosixPath(default).name
        if default.startswith("${"):
            continue
        if ":" not in image or image.endswith(":latest"):
            found.append(f"ARG {name}={default}: name a version")
        if "." not in default.rpartition("/")[0].split("/")[0]:
            found.append(f"ARG {name}={default}: name the registry")
    return found


def _of_the_builds(file: Dockerfile) -> list[str]:
    found = []
    for stage in file.stages:
        environment = " ".join(stage.all("ENV"))
        inherits = stage.base in {other.name for other in file.stages}
        commands = [one for run in stage.all("RUN") for one in re.split(r"&&|;", run)]
        for run in commands:
            if not ("/pip " in run and " install" in run):
                continue
            if not inherits and "PIP_NO_CACHE_DIR=1" not in environment:
                found.append(f"{stage.name}: pip leaves a cache")
            from_disk = "--no-deps --no-index" in run
            if "-c constraints.txt" not in run and not from_disk:
                found.append(f"{stage.name}: pip installs without the constraints")
            if "--only-binary=:all:" not in run and not from_disk:
                found.append(f"{stage.name}: pip may compile")
        for word in ("ADD", "VOLUME", "HEALTHCHECK"):
            found += [f"{stage.name}: {word}" for _ in stage.all(word)]
        secret = re.compile(r"(?i)\b\w*(token|password|secret|key)\w*=\S")
        found += [
            f"{stage.name}: a secret by {word}"
            for word, rest in stage.instructions
            if word in ("ARG", "ENV") and secret.search(rest)
        ]
    return found


def _of_the_last(stage: Stage) -> list[str]:
    found = []
    users = stage.all("USER")
    if not users or not re.fullmatch(r"[1-9]\d{3,}(:[1-9]\d{3,})", users[-1]):
        found.append("the user is not a number other than root's")
    tools = [BUILD_TOOLS.search(run) for run in stage.all("RUN")]
    found += [f"the last stage uses {tool[0]}" for tool in tools if tool]
    for copy in stage.all("COPY"):
        source = re.fullmatch(r"--from=(\w+) (\S+) (\S+)", copy)
        if source is None:
            found.append(f"COPY {copy}: the last stage copies from a stage alone")
        elif not source[2].endswith("/opt/darkroom") or source[3] != "/opt/darkroom":
            found.append(f"COPY {copy}: more than the environment")
    found += [
        f"{word} is not one list"
        for word in ("ENTRYPOINT", "CMD")
        if len(stage.all(word)) != 1 or not stage.all(word)[0].startswith("[")
    ]
    if "PYTHONDONTWRITEBYTECODE=1" not in " ".join(stage.all("ENV")):
        found.append("Python would write bytecode to the root")
    return found


def is_sent(path: str, ignore: str) -> bool:
    """Return whether a build with this ``.dockerignore`` gets ``path``: the last match decides."""
    sent = True
    parts = PurePosixPath(path).parts
    prefixes = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    for line in ignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        matcher = _matcher(pattern.removeprefix("!"))
        if any(matcher.fullmatch(prefix) for prefix in prefixes):
            sent = pattern.startswith("!")
    return sent


def _matcher(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*/|\*)", pattern)
    meaning = {"**/": r"(?:.*/)?", "*": r"[^/]*"}
    return re.compile("".join(meaning.get(piece, re.escape(piece)) for piece in pieces))
