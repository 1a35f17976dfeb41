"""The settings that both tiers share; the only place of this package that reads the environment.

Every variable is described in docs/configuration.md; a test holds the two together.
"""

from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from darkroom import webhooks
from darkroom.errors import SettingsError

S = TypeVar("S", bound=BaseSettings)

RENEWALS_PER_LEASE = 3
DEFAULT_CATALOG = Path(__file__).resolve().parent.parent / "models" / "catalog.yaml"


class DarkroomSettings(BaseSettings):
    """Backends, catalog, leases and logs. Variables start with ``DARKROOM_``."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")

    queue_url: str = Field("sqlite:///data/queue.db", description="Where messages wait.")
    jobstore_url: str = Field("sqlite:///data/jobs.db", description="Where job records are.")
    imagestore_url: str = Field("file:///data/images", description="Where pictures are.")
    catalog: Path = Field(DEFAULT_CATALOG, description="The catalog of models and pools.")
    region: str = Field(
        "local", pattern=r"^[a-z][a-z0-9]{1,11}$", description="First part of every job id."
    )
    lease_seconds: float = Field(
        60.0, ge=1, le=300, description="How long a message is held before it must be renewed."
    )
    renew_seconds: float = Field(
        20.0, gt=0, description="How often held messages are renewed; at most a third of the lease."
    )
    max_delivery_count: int = Field(
        5, ge=1, le=100, description="Failed deliveries before a message is dead-lettered."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="One JSON object a line, or text."
    )

    @property
    def queue_delivery_limit(self) -> int:
        """What queues are opened with: one delivery more than may run a job.

        The spare one runs nothing: it comes only after a worker died on the last that may, and is
        where the record is made to say Failed before the message is set aside.
        """
        return self.max_delivery_count + 1

    def delivery_limit(self, queue_name: str) -> int:
        """What the queue of that name is opened with; the webhooks' has a schedule of its own."""
        is_webhooks = queue_name == webhooks.QUEUE_NAME
        return webhooks.MAX_DELIVERY_COUNT if is_webhooks else self.queue_delivery_limit

    @model_validator(mode="after")
    def _lease_covers_renewals(self) -> Self:
        if self.lease_seconds < RENEWALS_PER_LEASE * self.renew_seconds:
            raise ValueError(
                f"lease_seconds ({self.lease_seconds:g}) must be at least {RENEWALS_PER_LEASE} x"
                f" renew_seconds ({self.renew_seconds:g})"
            )
        return self


class AzureEmulatorSettings(BaseSettings):
    """Connection strings of emulators on this machine, under the SDKs' usual names.

    Against Azure all stay unset and the process's identity is used; one that points to another
    machine is refused, since it holds a key.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    servicebus: SecretStr = Field(
        SecretStr(""),
        validation_alias="SERVICEBUS_CONNECTION_STRING",
        description="An emulated Service Bus: its AMQP port.",
    )
    servicebus_admin: SecretStr = Field(
        SecretStr(""),
        validation_alias="SERVICEBUS_ADMIN_CONNECTION_STRING",
        description="The same emulator's admin port; unset means port 5300.",
    )
    storage: SecretStr = Field(
        SecretStr(""),
        validation_alias="AZURE_STORAGE_CONNECTION_STRING",
        description="Emulated blobs and tables: Azurite.",
    )


class PodSettings(BaseSettings):
    """Who a worker is in a cluster, as the downward API tells it. Unset outside of one.

    Variables start with ``DARKROOM_WORKER_``.
    """

    model_config = SettingsConfigDict(env_prefix="DARKROOM_WORKER_", frozen=True, extra="ignore")

    pod_name: str = Field("", description="The worker's pod: `metadata.name`.")
    pod_namespace: str = Field("", description="The pod's namespace: `metadata.namespace`.")
    job_name: str = Field(
        "",
        description="On `kubernetes://`: the pod's Job,"
        " `metadata.labels['batch.kubernetes.io/job-name']`.",
    )
    termination_log: Path = Field(
        Path("/dev/termination-log"),
        description="On `kubernetes://`: the container's `terminationMessagePath`, for the reason"
        " of a dead letter.",
    )
    deletion_cost: bool = Field(
        False,
        description="Raise the pod's deletion cost while a job runs, so that scaling in takes idle"
        " workers first; needs the pod's name and namespace, and the right to patch pods.",
    )

    @model_validator(mode="after")
    def _cost_has_its_pod(self) -> Self:
        if self.deletion_cost and not (self.pod_name and self.pod_namespace):
            raise ValueError("deletion_cost needs pod_name and pod_namespace, by the downward API")
        return self


def load(kind: type[S]) -> S:
    """Read ``kind`` from the environment. Raises `SettingsError` that names the variable."""
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        prefix = kind.model_config.get("env_prefix", "")
        where = "_".join(str(part) for part in first["loc"])
        name = f"{prefix}{where}".upper() if where else prefix.rstrip("_")
        raise SettingsError(f"{name}: {first['msg']}", target=name) from None
