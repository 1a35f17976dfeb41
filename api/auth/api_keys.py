"""API keys, from a file that holds their digests.

Why plain SHA-256 and no slow, salted hash: those protect secrets that people think up, which can be
guessed. A key is 256 random bits; nobody can try them, so a slow hash would only slow down every
request. The file alone therefore lets nobody in.

Comparing takes constant time in what matters: the digest of what was sent is looked up in a map.
Time may tell something about digests, which nobody can choose without inverting SHA-256.

Rotation: put the new key beside the old one, move callers, then revoke the old one. The file is
looked at once a second at most and read when it has changed, so no process starts anew. A file that
becomes unreadable changes nothing and is logged: one mistake must not lock every tenant out.
"""

import asyncio
import hashlib
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from api.auth.base import Authenticator, Caller, Role
from api.errors import Unauthenticated
from api.secret_files import read_secret_file
from darkroom.clock import Clock
from darkroom.errors import SettingsError
from darkroom.log import get_logger

PREFIX = "dk_"  # what secret scanners look for: dk_[A-Za-z0-9_-]{43}
KEY_BYTES = 32
LOOK_AGAIN = timedelta(seconds=1)
VARIABLE = "DARKROOM_API_KEYS_FILE"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
DEFAULT_ROLES = (Role.SUBMIT, Role.READ)

Name = Annotated[str, Field(pattern=NAME)]


class KeyEntry(BaseModel):
    """One key as the file has it. ``name`` is for people; logs may show it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    tenant: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = DEFAULT_ROLES
    expires_at: AwareDatetime | None = None
    revoked: bool = False


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyEntry, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> "KeyFile":
        for field in ("name", "sha256"):
            listed = [getattr(entry, field) for entry in self.keys]
            if len(set(listed)) != len(listed):
                raise ValueError(f"keys: a {field} stands twice")
        return self


def new_key() -> str:
    """Return a fresh key: `PREFIX` and 256 random bits in 43 URL-safe characters."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest(key: str) -> str:
    """Return what the file holds of ``key``: its SHA-256 in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> dict[str, KeyEntry]:
    """Return a file's entries by digest. Raises `SettingsError` naming the fault."""
    file = read_secret_file(path, KeyFile, VARIABLE)
    return {entry.sha256: entry for entry in file.keys}


class ApiKeys(Authenticator):
    """The keys of ``path``, which must be readable at the start."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._log = get_logger()
        self._stamp = _stamp(path)
        self._entries = read_keys(path)
        self._looked_at = clock.now()

    def takes(self, credential: str) -> bool:
        """Whether it has the prefix of our keys."""
        return credential.startswith(PREFIX)

    async def identify(self, credential: str) -> Caller:
        """Return the tenant of a key that is listed, not revoked and not past its end."""
        await self._look()
        entry = self._entries.get(digest(credential))
        if entry is None or entry.revoked:
            raise Unauthenticated("the API key is not known, or was revoked")
        if entry.expires_at is not None and entry.expires_at <= self._clock.now():
            raise Unauthenticated("the API key has expired")
        return Caller(entry.tenant, frozenset(entry.roles))

    async def _look(self) -> None:
        now = self._clock.now()
        if now - self._looked_at < LOOK_AGAIN:
            return
        self._looked_at = now
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._entries = await asyncio.to_thread(read_keys, self._path)
        except SettingsError as error:
            self._log.error("keys_file_refused", reason=error.message)
            return
        self._log.info("keys_file_read", keys=len(self._entries))


def _stamp(path: Path) -> Any:
    """Return what changes with the file; a mounted secret changes by a link to another one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
