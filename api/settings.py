"""The settings of the API process alone; the only place of this package that reads the environment.

Every variable is described in docs/configuration.md; a test holds the two together.
"""

import ipaddress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_KINDS = "(api_keys|entra)"
_WITH_CREDENTIALS = {
    "requests_per_minute": 1_200.0,
    "max_queued_jobs": 500.0,
    "max_queued_gpu_seconds": 36_000.0,
}


class ApiSettings(BaseSettings):
    """Address, limits and periods of the API. Variables start with ``DARKROOM_API_``."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_API_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one and logs it."
    )
    auth: str = Field(
        "none",
        pattern=rf"^(none|{_KINDS}|{_KINDS},{_KINDS})$",
        description="Who may call: `none` (everybody on this machine), `api_keys`, `entra`, or"
        " `api_keys,entra`.",
    )
    keys_file: Path | None = Field(
        None,
        description="The file of API keys' digests (docs/authentication.md); read again when it"
        " changes.",
    )
    entra_issuers: str = Field(
        "",
        description="Issuers of accepted tokens, separated by commas:"
        " `https://login.microsoftonline.com/DIRECTORY/v2.0`.",
    )
    entra_audiences: str = Field(
        "",
        description="Audiences of accepted tokens, separated by commas: the API's application id.",
    )
    metrics_need_operator: bool = Field(
        False, description="Ask callers of /metrics for the role Jobs.Operate."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the port of metrics.")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="A port that serves /metrics beside the API's, to whoever reaches it; 0 for"
        " none.",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Requests of one tenant in any 60 seconds; 0 is no limit. Unset: 1,200 where"
        " callers show credentials, no limit where nobody does.",
    )
    limits_url: str = Field(
        "async+memory://",
        description="Where requests are counted: `async+memory://` (in each replica by itself) or"
        " `async+redis://HOST:PORT` (in all together; needs the extra `redis`).",
    )
    max_queued_jobs: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Jobs of one tenant that may wait; 0 is no limit. Unset: 500 where callers show"
        " credentials, no limit where nobody does.",
    )
    max_queued_gpu_seconds: float | None = Field(
        None,
        ge=0,
        description="Estimated GPU seconds of one tenant's waiting jobs; 0 is no limit. Unset:"
        " 36,000 where callers show credentials, no limit where nobody does.",
    )
    max_pool_jobs: int = Field(
        100_000,
        ge=0,
        description="Jobs that may wait in one pool, whoever they belong to; 0 is no limit.",
    )
    allow_anonymous_remote: bool = Field(
        False,
        description="Serve callers without credentials on an address other than loopback; without"
        " it the API refuses to start there.",
    )
    public_url: HttpUrl | None = Field(
        None,
        description="Address that callers use, when a gateway stands in front: the start of every"
        " link in answers. Unset takes each request's own.",
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024,
        ge=64 * 1024,
        description="Largest request body, in bytes; more is refused with 413 while it is read.",
    )
    sweep_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="How often the sweeper looks for jobs never sent; 0: not in this process, since"
        " another sweeps.",
    )
    unsent_seconds: float = Field(
        15.0,
        ge=0,
        le=3600,
        description="Age from which a job whose message was never confirmed is sent again.",
    )
    watch_seconds: float = Field(
        0.25,
        gt=0,
        le=10,
        description="How often the record of a job that somebody waits for is read.",
    )
    sync_wait_seconds: float = Field(
        120.0,
        gt=0,
        le=600,
        description="How long the routes that answer with the pictures themselves wait for them.",
    )
    link_seconds: float = Field(
        300.0,
        ge=10,
        le=3600,
        description="Lifetime of a direct link to a picture, where the image store makes links.",
    )
    shutdown_seconds: float = Field(
        15.0,
        ge=1,
        le=300,
        description="How long open requests may take to end after a signal to stop.",
    )

    @property
    def auth_kinds(self) -> frozenset[str]:
        """The kinds of credential that are accepted; none means that nobody is asked."""
        return frozenset(self.auth.split(",")) - {"none"}

    @property
    def is_local_only(self) -> bool:
        """Whether everybody may call, and nobody from another machine."""
        return not (self.auth_kinds or self.allow_anonymous_remote)

    def listed(self, name: str) -> tuple[str, ...]:
        """Return the parts of a field that is separated by commas."""
        parts = (part.strip() for part in getattr(self, name).split(","))
        return tuple(part for part in parts if part)

    def limit(self, name: str) -> float:
        """Return a limit of one tenant, or what holds while it is unset; 0 is no limit."""
        given = getattr(self, name)
        if given is not None:
            return float(given)
        return _WITH_CREDENTIALS[name] if self.auth_kinds else 0.0

    @model_validator(mode="after")
    def _credentials_can_be_checked(self) -> Self:
        if "api_keys" in self.auth_kinds and self.keys_file is None:
            raise ValueError("auth has api_keys: set DARKROOM_API_KEYS_FILE")
        if "entra" in self.auth_kinds:
            issuers = self.listed("entra_issuers")
            if not (issuers and self.listed("entra_audiences")):
                raise ValueError(
                    "auth has entra: set DARKROOM_API_ENTRA_ISSUERS and"
                    " DARKROOM_API_ENTRA_AUDIENCES"
                )
            if not all(map(_is_safe_issuer, issuers)):
                raise ValueError(
                    "DARKROOM_API_ENTRA_ISSUERS: each must be an https address without a slash at"
                    " its end"
                )
        return self

    @model_validator(mode="after")
    def _anonymous_stays_local(self) -> Self:
        if self.is_local_only and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is not a loopback address and callers need no credentials:"
                " set DARKROOM_API_ALLOW_ANONYMOUS_REMOTE=true if that is meant"
            )
        return self


def _is_safe_issuer(issuer: str) -> bool:
    url = urlsplit(issuer)
    is_safe = url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))
    return is_safe and bool(url.hostname) and not issuer.endswith("/") and not url.query


def is_loopback(host: str) -> bool:
    """Whether a host name or address always means this machine (RFC 6761, section 6.3)."""
    if host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
