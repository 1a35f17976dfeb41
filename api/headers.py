"""The request headers that the API understands, parsed by their own specifications."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.errors import InvalidInput

MAX_KEY_CHARACTERS = 255
MAX_WAIT_SECONDS = 60
_QUOTED = re.compile(r'^"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"$')  # RFC 8941 sf-string
_BARE = re.compile(r"^[\x21\x23-\x7e][\x20-\x7e]*$")
KEY_PATTERN = r'^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-~][ -~]{0,254})$'
"""Both forms of an ``Idempotency-Key`` as it is sent, for the OpenAPI document."""
_WAIT = re.compile(r"^wait\s*=\s*\"?(\d{1,6})\"?$", re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


@dataclass(frozen=True)
class Preference:
    """What of ``Prefer`` was taken up. ``applied`` is the answer's ``Preference-Applied``."""

    wait_seconds: int = 0
    applied: str | None = None


def idempotency_key(value: str | None) -> str | None:
    """Return the key of an ``Idempotency-Key`` header, quoted or bare.

    Raises `InvalidInput` unless it has 1 to 255 printable ASCII characters.
    """
    if value is None:
        return None
    text = value.strip()
    if quoted := _QUOTED.match(text):
        key = re.sub(r'\\(["\\])', r"\1", quoted[1])
    else:
        key = text if _BARE.match(text) else ""
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise InvalidInput(
            f"Idempotency-Key must be a string of 1 to {MAX_KEY_CHARACTERS} printable ASCII"
            " characters",
            target="Idempotency-Key",
        )
    return key


def preference(values: Sequence[str]) -> Preference:
    """Read ``Prefer`` (RFC 7240): ``wait=n`` up to 60 s, or ``respond-async``.

    What is not understood is ignored, as the RFC asks; the first that is understood wins.
    """
    for token in ",".join(values).split(","):
        text = token.split(";")[0].strip()
        if text.lower() == "respond-async":
            return Preference(0, "respond-async")
        if (wait := _WAIT.match(text)) and int(wait[1]) > 0:
            seconds = min(MAX_WAIT_SECONDS, int(wait[1]))
            return Preference(seconds, f"wait={seconds}")
    return Preference()


def etag(version: str) -> str:
    """Return a record's version, or a file's digest, as an entity tag."""
    return f'"{version}"'


def matches(if_none_match: str | None, version: str) -> bool:
    """Whether ``If-None-Match`` names ``version`` (weak comparison, RFC 9110 section 13.1.2)."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return version in _ETAG.findall(if_none_match)
