"""How a command ends when it cannot do what was asked: one line on stderr, and an exit status."""

from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.errors import MissingExtra

OUR_PACKAGES = frozenset({"darkroom", "api", "worker", "cli"})


class CommandFailed(Exception):
    """``message`` is the line to show; ``exit_status`` what the shell sees."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_status = exit_status


@contextmanager
def needing(extra: str, needed_for: str) -> Iterator[None]:
    """Run imports; turn a package that is not installed into `MissingExtra`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OUR_PACKAGES:
            raise  # a fault of ours, not of the installation
        raise MissingExtra(extra, needed_for) from error


def line_for(code: str, message: str, target: str | None) -> str:
    """Return one line that names the code, and the field or setting at fault once."""
    named = target is None or target in message
    return f"{code}: {message}" if named else f"{code} ({target}): {message}"
