"""The settings of webhooks; read by the API, which admits them, and by the sender.

Every variable is described in docs/configuration.md; a test holds the two together.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WebhookSettings(BaseSettings):
    """Who may have webhooks, and how they are sent; see docs/webhooks.md."""

    model_config = SettingsConfigDict(
        env_prefix="DARKROOM_API_WEBHOOK_", frozen=True, extra="ignore"
    )

    secrets_file: Path | None = Field(
        None,
        description="The file of tenants' signing secrets (docs/webhooks.md); read again when it"
        " changes. Unset: `webhook_url` is refused.",
    )
    ports: str = Field(
        "443,80",
        pattern=r"^\d{1,5}(,\d{1,5})*$",
        description="Ports that webhooks may go to, separated by commas.",
    )
    allow_loopback: bool = Field(
        False,
        description="Let webhooks go to this machine, by http too and to any port. For development:"
        " callers can then reach whatever listens here.",
    )
    timeout_seconds: float = Field(
        20.0,
        ge=1,
        le=30,
        description="How long one attempt may take, from the name's lookup to the answer.",
    )
    concurrency: int = Field(
        32, ge=2, le=1_000, description="Deliveries under way at once in one sender."
    )
    per_host: int = Field(
        4, ge=1, le=100, description="Deliveries under way at once to one receiver's host."
    )
    sweep_seconds: float = Field(
        5.0, gt=0, le=3600, description="How often the sender looks for ended jobs never announced."
    )
    unsent_seconds: float = Field(
        15.0,
        ge=0,
        le=3600,
        description="Time from a job's end after which its event, if not confirmed, is sent again.",
    )
    poll_seconds: float = Field(
        2.0, gt=0, le=60, description="Longest wait of one lease call; the sender stops within it."
    )
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port of the sender's Prometheus metrics; 0 for none."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the sender's metrics.")

    @property
    def allowed_ports(self) -> frozenset[int]:
        """The ports as numbers."""
        return frozenset(int(port) for port in self.ports.split(","))
