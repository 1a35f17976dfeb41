"""The wire format between the tiers: what a queue carries, in versioned JSON.

A message names the job and what a worker needs to choose among messages; never the prompt. A
reader refuses versions that it does not know, so a newer API can be rolled out before the workers:
their old release puts the message back until a new one takes it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from darkroom.errors import UnsupportedMessage
from darkroom.jobs import Job, end_event

M = TypeVar("M", bound=BaseModel)


class Message(Protocol):
    """What every queue can carry."""

    @property
    def message_id(self) -> str:
        """Identity for duplicate detection and operators."""
        ...

    @property
    def properties(self) -> Mapping[str, str]:
        """Small strings that brokers index and operators see."""
        ...

    def encode(self) -> bytes:
        """Return the body."""
        ...


class BatchKey(NamedTuple):
    """What jobs must agree in to share one pipeline call. Sides in pixels."""

    model: str
    kind: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str
    strength: float | None
    loras: tuple[str, ...]


class JobMessage(BaseModel):
    """One admitted job. ``gpu_seconds`` is the estimate that routed it; sides in pixels.

    The fields from ``kind`` on are what decides which jobs can share one pipeline call, so that a
    worker's window is scheduled without reading records.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    version: Literal[1] = 1
    job_id: str
    tenant: str
    pool: str
    model: str
    gpu_seconds: float
    created_at: datetime
    deadline_at: datetime | None = None
    traceparent: str | None = None
    kind: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    num_images: int
    scheduler: str
    loras: tuple[str, ...] = ()
    strength: float | None = None

    @property
    def batch_key(self) -> BatchKey:
        """What it must share with another job to share its pipeline call."""
        return BatchKey(**{name: getattr(self, name) for name in BatchKey._fields})

    @property
    def message_id(self) -> str:
        """The job's id, so that a second send of the same job is a duplicate."""
        return self.job_id

    @property
    def properties(self) -> Mapping[str, str]:
        """Model, tenant, pool and W3C trace context."""
        named = {"model": self.model, "tenant": self.tenant, "pool": self.pool}
        return named if self.traceparent is None else {**named, "traceparent": self.traceparent}

    def encode(self) -> bytes:
        """Return the body as JSON."""
        return self.model_dump_json().encode()


def message_for(job: Job) -> JobMessage:
    """Return the message that announces ``job``; the same job gives the same message."""
    asked = job.generation
    return JobMessage(
        job_id=job.id,
        tenant=job.tenant,
        pool=job.pool,
        model=asked.model,
        gpu_seconds=job.estimated_gpu_seconds,
        created_at=job.created_at,
        deadline_at=job.deadline_at,
        traceparent=job.traceparent,
        kind=asked.kind,
        width=asked.width,
        height=asked.height,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        num_images=asked.num_images,
        scheduler=asked.scheduler,
        loras=tuple(f"{lora.name}:{lora.weight}" for lora in asked.loras),
        strength=asked.strength,
    )


class WebhookMessage(BaseModel):
    """The event of a job that has ended. ``replay`` tells deliveries that were asked for apart."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    job_id: str
    tenant: str
    event: str
    replay: str = ""

    @property
    def webhook_id(self) -> str:
        """What receivers tell duplicates by: the same for every attempt and every replay."""
        return f"{self.job_id}.{self.event}"

    @property
    def message_id(self) -> str:
        """The webhook's id; a replay has its own, or a queue might drop it as a duplicate."""
        return f"{self.webhook_id}.{self.replay}" if self.replay else self.webhook_id

    @property
    def properties(self) -> Mapping[str, str]:
        """Tenant and event."""
        return {"tenant": self.tenant, "event": self.event}

    def encode(self) -> bytes:
        """Return the body as JSON."""
        return self.model_dump_json().encode()


def webhook_message_for(job: Job, replay: str = "") -> WebhookMessage:
    """Return the message of an ended job's event."""
    return WebhookMessage(
        job_id=job.id, tenant=job.tenant, event=end_event(job.status), replay=replay
    )


def decode(body: bytes) -> JobMessage:
    """Read a message. Raises `UnsupportedMessage` for another version or a body that is none."""
    return _decode(JobMessage, body)


def decode_webhook(body: bytes) -> WebhookMessage:
    """Read a webhook's message. Raises `UnsupportedMessage` as `decode` does."""
    return _decode(WebhookMessage, body)


def _decode(kind: type[M], body: bytes) -> M:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise UnsupportedMessage(
            f"message field {where} cannot be read: {first['msg']}", target=where
        ) from None
