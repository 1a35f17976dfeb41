"""The settings of the API process alone; the only place of this package that reads the environment.

Every variable is described in docs/configuration.md; a test holds the two together.
"""

import ipaddress
from typing import Self

from pydantic import Field, HttpUrl, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ApiSettings(BaseSettings):
    """Address, limits and periods of the API. Variables start with ``DARKROOM_API_``."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_API_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one and logs it."
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
        5.0, gt=0, le=3600, description="How often the sweeper looks for jobs never sent."
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

    @model_validator(mode="after")
    def _anonymous_stays_local(self) -> Self:
        if not (self.allow_anonymous_remote or _is_loopback(self.host)):
            raise ValueError(
                f"host {self.host} is not a loopback address and callers need no credentials:"
                " set DARKROOM_API_ALLOW_ANONYMOUS_REMOTE=true if that is meant"
            )
        return self


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
