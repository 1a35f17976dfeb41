"""The worker's own settings; the only place of this package that touches the environment.

Every variable is described in docs/configuration.md; a test holds the two together.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from darkroom.catalog import Catalog, Pool
from darkroom.errors import SettingsError
from darkroom.settings import load

STORING_SECONDS = 30.0
LEAST_STUCK_SECONDS = 600.0
GIB = 2**30
PLACES = r"^(hub|azblob://[^/]+/[^/]+)$"
DEVICES = r"^(all|[1-9]\d?)?$"


class ModelsSettings(BaseSettings):
    """Where pulled models lie, and where they come from. Variables start with ``DARKROOM_``."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")

    models_dir: Path | None = Field(
        None,
        description="Folder that `darkroom models pull` fills and workers read; it may be mounted"
        " read-only for workers.",
    )
    models_from: str = Field(
        "hub",
        pattern=PLACES,
        description="Where `darkroom models pull` gets models: `hub` (Hugging Face, or the mirror"
        " that `HF_ENDPOINT` names) or `azblob://ACCOUNT/CONTAINER`.",
    )
    hub_url: str = Field(
        "https://huggingface.co",
        validation_alias="HF_ENDPOINT",
        pattern=r"^https?://",
        description="The hub that `darkroom models pull` asks; `HF_TOKEN` is its key.",
    )


class DeviceSettings(BaseSettings):
    """The GPUs that this process may see, as CUDA and the container runtime are told."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    cuda: str | None = Field(
        None,
        validation_alias="CUDA_VISIBLE_DEVICES",
        description="GPUs that CUDA shows: indices or UUIDs, of MIG slices too; empty: none.",
    )
    nvidia: str | None = Field(
        None,
        validation_alias="NVIDIA_VISIBLE_DEVICES",
        description="GPUs that the container was given; read where `nvidia-smi` is not there.",
    )

    @property
    def single(self) -> str:
        """The UUID of the one device of this process; empty where that is not said."""
        for told in (self.cuda, self.nvidia):
            if told is not None:
                return told if told.startswith(("GPU-", "MIG-")) and "," not in told else ""
        return ""


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
    devices: str = Field(
        "",
        pattern=DEVICES,
        description="Start a worker process on each GPU or MIG slice that is visible (`all`), or"
        " on the first N; empty: this process is the only one.",
    )
    torch_threads: int = Field(
        0, ge=0, le=256, description="CPU threads of torch; 0 leaves torch its own choice."
    )
    warm_models: str = Field(
        "default",
        description="Models that are loaded before the worker says it is ready, separated by"
        " commas: names, `default` (the catalog's default model, or else the pool's first), or"
        " `all` of the pool's; empty loads none.",
    )
    warm_steps: int = Field(
        0,
        ge=0,
        le=50,
        description="Steps of one picture, thrown away, that each warm model then makes, so that"
        " kernels are compiled before the first job; 0 makes none.",
    )
    device_memory_gib: float = Field(
        0.0,
        ge=0,
        description="GiB of the device that models may fill; 0: three quarters of it. The rest is"
        " for the pictures in the making.",
    )
    host_memory_gib: float = Field(
        0.0,
        ge=0,
        description="GiB of host memory for models that wait off the device; 0: half of it.",
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
    window: int = Field(
        64,
        ge=1,
        le=1000,
        description="Most messages held ahead of the running batch; its share of the backlog bounds"
        " it as well.",
    )
    depth_seconds: float = Field(
        5.0,
        gt=0,
        le=600,
        description="Least time between two counts of the queue's messages; an idle worker counts"
        " none.",
    )
    progress_seconds: float = Field(
        1.0, ge=0, le=60, description="Least time between two progress writes of a job."
    )
    cancel_check_seconds: float = Field(
        0.1,
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
    metrics_host: str = Field(
        "127.0.0.1", description="Address that serves `/metrics`, `/livez` and `/readyz`."
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the same; 0 serves none. With several devices it stands for all, and"
        " each worker has a loopback port of its own, counted up from this one.",
    )
    idle_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="End after so long without a job; for workers that are Jobs. 0: never.",
    )
    stuck_seconds: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="How long the engine may show no sign of life (a step, a load, a picture)"
        " before `/livez` fails; 0: the pool's max_gpu_seconds and its longest load together, at"
        " least 10 minutes.",
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

    def stuck_after(self, pool: Pool, catalog: Catalog) -> float:
        """Return for how many seconds the engine may be silent before it counts as stuck."""
        if self.stuck_seconds:
            return self.stuck_seconds
        longest_load = max(catalog.model(name).load_seconds for name in pool.models)
        return max(LEAST_STUCK_SECONDS, pool.max_gpu_seconds + longest_load)

    @property
    def device_bytes(self) -> int:
        """What models may take of the device; 0: the engine's own share."""
        return int(self.device_memory_gib * GIB)

    @property
    def host_bytes(self) -> int:
        """What models may take of host memory; 0: the engine's own share."""
        return int(self.host_memory_gib * GIB)


def load_worker_settings(devices: str | None) -> WorkerSettings:
    """Read the settings; ``devices`` from the command line wins. Raises `SettingsError`."""
    settings = load(WorkerSettings)
    if devices is None:
        return settings
    if not re.fullmatch(DEVICES, devices):
        raise SettingsError(f"--devices: write all or a number, not {devices}", target="--devices")
    return settings.model_copy(update={"devices": devices})


def load_models_settings(cache: Path | None, place: str | None) -> ModelsSettings:
    """Read the settings; what the command line gives wins. Raises `SettingsError`."""
    settings = load(ModelsSettings)
    if place is not None and not re.fullmatch(PLACES, place):
        raise SettingsError(
            f"{place}: write hub or azblob://ACCOUNT/CONTAINER", target="--from or --to"
        )
    given = {"models_dir": cache, "models_from": place}
    return settings.model_copy(update={name: text for name, text in given.items() if text})


def child_ports(count: int, settings: WorkerSettings) -> Sequence[int]:
    """Return the metrics ports of ``count`` workers of this machine; none where none is served."""
    first = settings.metrics_port + 1
    return range(first, first + count) if settings.metrics_port else ()


def child_environments(
    devices: Sequence[str], settings: WorkerSettings
) -> Sequence[dict[str, str]]:
    """Return the variables of one worker process per device (a UUID), each of which sees its own.

    Where metrics are served, each serves its own on a loopback port of its own.
    """
    ports = child_ports(len(devices), settings) or [0] * len(devices)
    return [
        {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": device,
            "DARKROOM_WORKER_DEVICES": "",
            "DARKROOM_WORKER_METRICS_HOST": "127.0.0.1",
            "DARKROOM_WORKER_METRICS_PORT": str(port),
        }
        for device, port in zip(devices, ports, strict=True)
    ]


def restrain_libraries() -> None:
    """Keep the Hugging Face libraries off the network and quiet; call before they are imported.

    Weights are pinned and local: a worker that could fetch others would run unreviewed files. Their
    warnings quote prompts.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DIFFUSERS_VERBOSITY"] = os.environ["TRANSFORMERS_VERBOSITY"] = "error"
