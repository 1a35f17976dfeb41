"""A client of the API for one command, and its errors as lines for the shell."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli.problems import CommandFailed, line_for
from cli.settings import load_cli_settings
from darkroom.client import Client, DarkroomClientError, ServerUnreachable


@contextmanager
def connected(url: str | None) -> Iterator[Client]:
    """Yield a client of ``url``, or of DARKROOM_URL. Raises `CommandFailed`."""
    settings = load_cli_settings(url)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    try:
        with Client(settings.url, key) as client:
            yield client
    except ServerUnreachable as error:
        raise CommandFailed(f"{error.message}; start one with: darkroom up") from error
    except DarkroomClientError as error:
        raise CommandFailed(line_for(error.code, error.message, error.target)) from error
