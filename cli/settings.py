"""The settings of the command; the only place of this package that reads the environment."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from darkroom.errors import SettingsError
from darkroom.settings import load


class CliSettings(BaseSettings):
    """Where the API is and how to be let in. Variables start with ``DARKROOM_``."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")

    url: str = Field(
        "http://127.0.0.1:8080",
        pattern=r"^https?://",
        description="Address of the API that the client commands talk to.",
    )
    api_key: SecretStr | None = Field(None, description="Credential sent with every request.")


class WorkloadIdentitySettings(BaseSettings):
    """What AKS gives a pod with Workload ID; `darkroom doctor` looks whether it did."""

    model_config = SettingsConfigDict(env_prefix="AZURE_", frozen=True, extra="ignore")

    client_id: str = Field("", description="The identity's client id; set by AKS.")
    tenant_id: str = Field("", description="The directory of the identity; set by AKS.")
    federated_token_file: Path | None = Field(
        None, description="The token that Entra ID exchanges; set by AKS."
    )

    @property
    def missing(self) -> list[str]:
        """The variables that are not set."""
        return [
            f"AZURE_{name.upper()}" for name in type(self).model_fields if not getattr(self, name)
        ]


def load_cli_settings(url: str | None) -> CliSettings:
    """Read the settings; ``url`` from the command line wins. Raises `SettingsError`."""
    settings = load(CliSettings)
    if url is None:
        return settings
    if not url.startswith(("http://", "https://")):
        raise SettingsError("--url must start with http:// or https://", target="--url")
    return settings.model_copy(update={"url": url})


def child_environment(
    *, data_dir: Path | None, catalog: Path | None, **variables: str
) -> dict[str, str]:
    """Return the environment of a process that `darkroom up` starts.

    It is ours, with the three backends in ``data_dir`` and the given variables on top.
    """
    environment = {**os.environ, **variables}
    if data_dir is not None:
        folder = data_dir.resolve()
        environment["DARKROOM_QUEUE_URL"] = f"sqlite:///{folder / 'queue.db'}"
        environment["DARKROOM_JOBSTORE_URL"] = f"sqlite:///{folder / 'jobs.db'}"
        environment["DARKROOM_IMAGESTORE_URL"] = f"file:///{folder / 'images'}"
    if catalog is not None:
        environment["DARKROOM_CATALOG"] = str(catalog.resolve())
    return environment
