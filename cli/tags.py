"""Labels as they are typed: name=value."""

from cli.problems import CommandFailed


def parse_tag(text: str) -> tuple[str, str]:
    """Return the name and the value. Raises `CommandFailed` with the status of a usage error."""
    name, given, value = text.partition("=")
    if not given or not name:
        raise CommandFailed(f"--tag {text}: must be name=value", 2)
    return name, value
