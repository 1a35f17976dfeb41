"""The worker's own settings; the only place of this package that touches the environment.

Every variable is described in docs/configuration.md; a test holds the two together.
"""

import os
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from darkroom.catalog import Pool
from darkroom.errors import SettingsError

STORING_SECONDS = 30.0


class WorkerSettings(BaseSettings):
    """How one worker runs. Variables start with ``DARKROOM_WORKER_``."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_WORKER_", frozen=True, extra="ignore")

    pool: str = Field("", description="Pool to serve; empty means the catalog's first.")
    engine: Literal["diffusers", "fake"] = Field(
        "diffusers",
        description="What makes the pictures; `fake` draws noise and is for tests only.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+)$",
        description="Where pipelines run: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if any.",
    )
    torch_threads: int = Field(
        0, ge=0, le=256, description="CPU threads of torch; 0 leaves torch its own choice."
    )
    grace_seconds: float | None = Field(
        None,
        ge=0,
        le=7200,
        description="How long a running job may go on after SIGTERM before it is given back; at"
        " least the pool's max_gpu_seconds. Unset: that and 30 more, for storing.",
    )
    poll_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="Longest wait of one lease call; an idle worker stops within this time.",
    )
    progress_seconds: float = Field(
        1.0, ge=0, le=60, description="Least time between two progress writes of a job."
    )
    cancel_check_seconds: float = Field(
        0.02,
        ge=0,
        le=60,
        description="Least time between two looks for a cancel while denoising; 0 looks each step.",
    )
    retry_base_seconds: float = Field(
        2.0,
        ge=0,
        le=600,
        description="Back-off after the first failed delivery; doubles each time.",
    )
    retry_cap_seconds: float = Field(
        120.0, ge=0, le=3600, description="Longest back-off between two deliveries of a job."
    )
    metrics_host: str = Field("127.0.0.1", description="Address that serves Prometheus metrics.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port that serves Prometheus metrics; 0 serves none."
    )
    scheduled_events_url: str = Field(
        "",
        description="Azure Scheduled Events address to watch for evictions; empty watches nothing.",
    )
    image_digest: str = Field(
        "", description="Digest of the container image, noted in each job's provenance."
    )
    fake_step_seconds: float = Field(
        0.0, ge=0, le=60, description="Tests only: seconds per step of the fake engine."
    )

    def grace_for(self, pool: Pool) -> float:
        """Return the grace period for workers of ``pool``, in seconds.

        Raises `SettingsError` when it is set to less than the pool's longest job: every roll-out
        would throw that job's work away.
        """
        if self.grace_seconds is None:
            return pool.max_gpu_seconds + STORING_SECONDS
        if self.grace_seconds < pool.max_gpu_seconds:
            name = "DARKROOM_WORKER_GRACE_SECONDS"
            raise SettingsError(
                f"{name} ({self.grace_seconds:g}) must be at least max_gpu_seconds of pool"
                f" {pool.name} ({pool.max_gpu_seconds:g})",
                target=name,
            )
        return self.grace_seconds


def restrain_libraries() -> None:
    """Keep the Hugging Face libraries off the network and quiet; call before they are imported.

    Weights are pinned and local: a worker that could fetch others would run unreviewed files. Their
    warnings quote prompts.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DIFFUSERS_VERBOSITY"] = os.environ["TRANSFORMERS_VERBOSITY"] = "error"
