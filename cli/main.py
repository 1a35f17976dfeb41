"""The entry point: run a command, and say in one line what stopped it."""

import sys
from collections.abc import Sequence

from cli.problems import CommandFailed, line_for, needing
from cli.tiers import TIERS, WATCH_PARENT, follow_parent
from darkroom.errors import DarkroomError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `darkroom` with ``arguments`` (default: the process's); exits with the status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(words)
    except CommandFailed as failure:
        _fail(failure.message, failure.exit_status)
    except DarkroomError as error:
        _fail(line_for(error.code, error.message, error.target), 1)


def _run(words: list[str]) -> None:
    # A tier's container has no command-line packages: these two forms need none.
    if words[1:] in ([], [WATCH_PARENT]) and words[:1] and words[0] in TIERS:
        if words[1:]:
            follow_parent()
        sys.exit(TIERS[words[0]]())
    with needing("cli", "the darkroom command"):
        from cli.commands import app

        app(words, prog_name="darkroom")


def _fail(line: str, status: int) -> None:
    print(f"darkroom: {line}", file=sys.stderr)
    sys.exit(status)
