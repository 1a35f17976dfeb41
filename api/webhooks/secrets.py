"""The tenants' signing secrets, from a mounted file::

    tenants:
      - tenant: studio
        secrets: [whsec_..., whsec_...]

Every secret of a tenant signs every delivery. Rotation: put the new one beside the old, let the
receiver take either, then remove the old. The file is looked at once a second at most and read
when it has changed. A file that becomes unreadable changes nothing and is logged.
"""

import base64
import binascii
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from api.secret_files import read_secret_file
from darkroom.clock import Clock
from darkroom.errors import SettingsError
from darkroom.log import get_logger

PREFIX = "whsec_"
SECRET_BYTES = 32
MIN_BYTES, MAX_BYTES = 24, 64  # what Standard Webhooks asks for
LOOK_AGAIN = timedelta(seconds=1)
VARIABLE = "DARKROOM_API_WEBHOOK_SECRETS_FILE"


def _secret(text: str) -> str:
    try:
        decoded = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        decoded = b""
    if not (text.startswith(PREFIX) and MIN_BYTES <= len(decoded) <= MAX_BYTES):
        raise ValueError(f"a secret is {PREFIX} and {MIN_BYTES} to {MAX_BYTES} bytes in base64")
    return text


class _Tenant(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Annotated[str, Field(min_length=1, max_length=256)]
    secrets: Annotated[
        tuple[Annotated[str, AfterValidator(_secret)], ...], Field(min_length=1, max_length=4)
    ] = Field(repr=False)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenants: tuple[_Tenant, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> "_File":
        names = [entry.tenant for entry in self.tenants]
        if len(set(names)) != len(names):
            raise ValueError("tenants: a tenant stands twice")
        return self


def new_secret() -> str:
    """Return a fresh secret: `PREFIX` and 256 random bits in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def read_secrets(path: Path) -> dict[str, tuple[str, ...]]:
    """Return each tenant's secrets. Raises `SettingsError` naming the fault, never a secret."""
    file = read_secret_file(path, _File, VARIABLE)
    return {entry.tenant: entry.secrets for entry in file.tenants}


class Secrets:
    """The secrets of ``path``, which must be readable at the start; None is no file at all."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._stamp = _stamp(path)
        self._secrets = read_secrets(path) if path is not None else {}
        self._looked_at: datetime = clock.now()

    def of(self, tenant: str) -> tuple[str, ...]:
        """Return the tenant's secrets, the first the newest by habit; empty when it has none."""
        self._look()
        return self._secrets.get(tenant, ())

    def _look(self) -> None:
        now = self._clock.now()
        if self._path is None or now - self._looked_at < LOOK_AGAIN:
            return
        self._looked_at = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._secrets = read_secrets(self._path)
        except SettingsError as error:
            get_logger().error("webhook_secrets_file_refused", reason=error.message)
            return
        get_logger().info("webhook_secrets_file_read", tenants=len(self._secrets))


def _stamp(path: Path | None) -> Any:
    """Return what changes with the file; a mounted secret changes by a link to another one."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)
