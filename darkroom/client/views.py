"""The API's answers as frozen values.

Fields that a newer server adds are ignored, so that an older client keeps working. Times are in
seconds, sides in pixels, cost in US dollars.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from darkroom.jobs import JobState


class View(BaseModel):
    """Frozen; fields that are not known are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ImageView(View):
    """One finished picture; ``url`` may be relative to the server's address."""

    url: str
    width: int
    height: int
    sha256: str
    seed: int


class PreviewView(View):
    """What the first picture of a running job looked like at ``step``."""

    url: str
    step: int


class ErrorView(View):
    """Why a job failed."""

    code: str
    message: str
    target: str | None = None


class UsageView(View):
    """What the job took."""

    queue_seconds: float = 0.0
    load_seconds: float = 0.0
    gpu_seconds: float = 0.0
    store_seconds: float = 0.0
    cost_usd: float = 0.0


class JobView(View):
    """A job as the API shows it."""

    id: str
    status: JobState
    phase: str = ""
    progress: float = 0.0
    step: int = 0
    model: str = ""
    input: dict[str, Any] = Field(default_factory=dict)
    preview: PreviewView | None = None
    images: tuple[ImageView, ...] = ()
    error: ErrorView | None = None
    usage: UsageView = UsageView()
    attempts: int = 0
    resubmitted_from: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    erased_at: datetime | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class JobPage(View):
    """Some jobs, newest first; ``next_link`` continues, None at the end."""

    value: tuple[JobView, ...]
    next_link: str | None = None


class ModelView(View):
    """A model that may be asked for."""

    name: str
    title: str = ""
    kinds: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()
    defaults: dict[str, Any] = Field(default_factory=dict)
    limits: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
