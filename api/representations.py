"""The bodies of answers: what a caller sees of jobs and models."""

import math
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.lines import Place
from darkroom.catalog import Catalog, Model, ModelDefaults, ModelLimits, Pool
from darkroom.generation import Generation
from darkroom.jobs import Job, JobError, JobState, Phase, Provenance, Usage
from darkroom.webhooks import WebhookEvent, WebhookState

MIN_RETRY_SECONDS = 1
MAX_RETRY_SECONDS = 30


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ImageBody(_Body):
    """One finished picture. Sides in pixels."""

    index: int
    url: str = Field(description="Where the PNG is.")
    width: int
    height: int
    sha256: str = Field(description="Of the PNG file, in hex.")
    seed: int = Field(description="The seed that gives this picture alone.")


class PreviewBody(_Body):
    """What the first picture looked like a moment ago: small, and replaced by the next."""

    url: str = Field(description="Where the PNG is, until the job ends.")
    step: int = Field(ge=0, description="The denoising step that it shows.")

    @classmethod
    def of(cls, job: Job, base_url: str) -> "PreviewBody | None":
        """Return the preview of a running job that has one."""
        if job.preview_step is None or job.status is not JobState.RUNNING:
            return None
        return cls(url=f"{base_url}/v1/jobs/{job.id}/preview", step=job.preview_step)


class QueueBody(_Body):
    """Where a waiting job stands in its pool's line. Estimates, at most a second old."""

    position: int = Field(ge=1, description="1 is the next to begin.")
    eta_seconds: float = Field(
        ge=0, description="Until it may begin, if all of the pool's replicas run."
    )

    @classmethod
    def of(cls, place: Place | None) -> "QueueBody | None":
        """Return how a place is shown."""
        if place is None:
            return None
        return cls(position=place.position, eta_seconds=place.eta_seconds)


class WebhookBody(_Body):
    """Whom a job's end is told to, and how far that is."""

    url: str
    events: list[WebhookEvent]
    state: WebhookState = Field(
        description="waiting for the end; unwanted; pending or queued; disabled by a 410."
    )


class JobBody(_Body):
    """A job, and the status monitor of its operation."""

    id: str
    status: JobState
    phase: Phase = Field(description="What is being done right now; finer than the status.")
    progress: float = Field(ge=0, le=1, description="Share done, 0 to 1.")
    step: int = Field(ge=0, description="Denoising steps done of `input.num_inference_steps`.")
    queue: QueueBody | None = Field(description="Its place in the line; null unless it waits.")
    model: str
    pool: str
    cancel_requested: bool
    input: Generation = Field(description="What is run: every default filled in, with the seed.")
    preview: PreviewBody | None = Field(
        description="The newest of `partial_images`, while the job runs."
    )
    images: list[ImageBody]
    error: JobError | None = Field(description="Why it failed.")
    usage: Usage
    provenance: Provenance | None = Field(description="What made the pictures.")
    attempts: int = Field(ge=0, description="How often a worker has begun it.")
    tags: dict[str, str]
    webhook: WebhookBody | None
    resubmitted_from: str | None = Field(description="The failed job that this one repeats.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    erased_at: datetime | None = Field(description="When prompt and pictures were erased.")


class JobPage(_Body):
    """Some jobs, newest first."""

    value: list[JobBody]
    next_link: str | None = Field(
        None, description="Where the next page is; left out on the last page."
    )


class ModelBody(_Body):
    """A model, and what may be asked of it."""

    name: str
    title: str
    kinds: list[str]
    defaults: ModelDefaults
    limits: ModelLimits
    scheduler: str = Field(description="The default.")
    schedulers: list[str]
    loras: list[str]
    licence: str
    revision: str
    pools: list[str] = Field(description="Where it runs, the first that a job fits first.")
    max_gpu_seconds: float = Field(description="The longest job, in estimated GPU seconds.")


class ModelList(_Body):
    """All models of the catalog."""

    value: list[ModelBody]
    default_model: str


class Health(_Body):
    """Whether the process, or what it depends on, answers."""

    status: str
    checks: dict[str, str] = Field(default_factory=dict)


def job_body(job: Job, base_url: str, place: Place | None = None) -> JobBody:
    """Return what a caller sees of ``job``; links start with ``base_url`` (no slash at its end).

    ``place`` is where it waits.
    """
    images = [
        ImageBody(
            url=f"{base_url}/v1/jobs/{job.id}/images/{image.index}",
            **image.model_dump(),
        )
        for image in job.images
    ]
    return JobBody(
        id=job.id,
        status=job.status,
        phase=job.phase,
        progress=job.progress,
        step=job.step,
        queue=QueueBody.of(place),
        model=job.generation.model,
        pool=job.pool,
        cancel_requested=job.cancel_requested,
        input=job.generation,
        preview=PreviewBody.of(job, base_url),
        images=images,
        error=job.error,
        usage=job.usage.rounded(),
        provenance=job.provenance,
        attempts=job.attempts,
        tags=job.tags,
        webhook=_webhook_body(job),
        resubmitted_from=job.resubmitted_from,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        deadline_at=job.deadline_at,
        erased_at=job.erased_at,
    )


def _webhook_body(job: Job) -> WebhookBody | None:
    if job.webhook is None:
        return None
    asked = job.webhook
    return WebhookBody(url=asked.url, events=list(asked.events), state=asked.state)


def retry_after_seconds(job: Job, place: Place | None = None) -> int:
    """Return when to look again, 1 to 30 seconds: the wait in line and what is left of the job."""
    left = job.estimated_gpu_seconds * (1 - job.progress)
    if place is not None:
        left += place.eta_seconds
    return max(MIN_RETRY_SECONDS, min(MAX_RETRY_SECONDS, math.ceil(left)))


def model_list(catalog: Catalog) -> ModelList:
    """Return what the catalog offers."""
    return ModelList(
        value=[_model_body(model, catalog.pools) for model in catalog.models],
        default_model=catalog.default_model,
    )


def _model_body(model: Model, pools: tuple[Pool, ...]) -> ModelBody:
    serving = [pool for pool in pools if model.name in pool.models]
    return ModelBody(
        name=model.name,
        title=model.title,
        kinds=list(model.kinds),
        defaults=model.defaults,
        limits=model.limits,
        scheduler=model.scheduler,
        schedulers=list(model.schedulers_allowed()),
        loras=[lora.name for lora in model.loras],
        licence=model.licence,
        revision=model.revision,
        pools=[pool.name for pool in serving],
        max_gpu_seconds=max(pool.max_gpu_seconds for pool in serving),
    )
