"""Opaque page cursors: the id of the last job seen, wrapped so that callers do not build on it."""

import base64
import binascii
import re

from darkroom.errors import InvalidInput

_CURSOR = re.compile(r"^after:([A-Za-z0-9._-]{1,200})$")


def encode_cursor(job_id: str) -> str:
    """Return the cursor of a page that ended with ``job_id``."""
    return base64.urlsafe_b64encode(f"after:{job_id}".encode()).decode()


def decode_cursor(cursor: str) -> str:
    """Return the job id that a cursor names. Raises `InvalidInput` with target ``cursor``."""
    try:
        text = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if found := _CURSOR.match(text):
        return found[1]
    raise InvalidInput("cursor is not one that a page of this list gave", target="cursor")
