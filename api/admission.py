"""Who may have what run, on which pool, and the three effects that make it so.

No web framework here: every way in (jobs, the OpenAI route, the tutorial's) calls `Admission`.

Order of effects: input pictures stored → record created (with its idempotency key) → message sent →
record marked as sent. Dying between any two loses nothing: before the record there is no job, after
it the sweeper sends what was not confirmed, and a second message of one job is harmless.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from api.caps import TenantCaps
from api.errors import JobErased, JobNotFinished, JobSucceeded
from api.lines import PoolLines
from api.pictures import StoredPicture, decode, fit
from api.resolving import Sides, choose_model, resolve
from api.webhooks.policy import WebhookPolicy
from darkroom.catalog import Catalog
from darkroom.clock import Clock
from darkroom.errors import (
    ImageNotFound,
    InvalidInput,
    QueueUnavailable,
    StoreUnavailable,
    VersionConflict,
)
from darkroom.generation import Generation, GenerationRequest
from darkroom.imagestores.base import INPUT_IMAGE, INPUT_MASK, ImageStore
from darkroom.jobs import Job, JobState, mark_sent, new_job_id
from darkroom.jobstores.base import Idempotency, JobStore
from darkroom.log import get_logger, prompt_hash
from darkroom.messages import message_for
from darkroom.metrics import ApiMetrics
from darkroom.queues.base import JobQueue
from darkroom.tracing import trace_id
from darkroom.webhooks import WebhookState


@dataclass(frozen=True)
class Resolved:
    """What will be run, and the pictures to store for it, by name."""

    generation: Generation
    pictures: Mapping[str, StoredPicture]


class Admission:
    """Decides, and accepts. At most two record writes and one send per submit."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        region: str,
        jobs: JobStore,
        images: ImageStore,
        queues: Mapping[str, JobQueue],
        clock: Clock,
        metrics: ApiMetrics,
        caps: TenantCaps,
        lines: PoolLines,
        webhooks: WebhookPolicy,
    ) -> None:
        self._catalog = catalog
        self._region = region
        self._jobs = jobs
        self._images = images
        self._queues = queues
        self._clock = clock
        self._metrics = metrics
        self._caps = caps
        self._lines = lines
        self._webhooks = webhooks
        self._log = get_logger()

    async def submit(
        self,
        tenant: str,
        request: GenerationRequest,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> Job:
        """Admit ``request`` for ``tenant``; return its job, or the key's earlier one.

        Raises `InvalidInput` and its kinds, `LimitReached` and its kinds, `IdempotencyKeyReused`,
        `StoreUnavailable`. A queue that cannot be reached is no error: the job is recorded and the
        sweeper sends it.
        """
        webhook = self._webhooks.webhook_of(tenant, request)
        resolved = await _prepare(request, self._catalog)
        job = self._new_job(
            tenant,
            resolved.generation,
            request.deadline_seconds,
            tags=request.tags,
            traceparent=traceparent,
            webhook=webhook,
            partial_images=request.partial_images,
        )
        pictures = {name: picture.png for name, picture in resolved.pictures.items()}
        key = idempotency_key
        return await self._admit(
            job, pictures, Idempotency(key, fingerprint(request)) if key else None
        )

    async def resubmit(self, old: Job, *, traceparent: str | None = None) -> Job:
        """Admit a new job with the parameters and the seed of a failed or canceled one.

        Asking again within `IDEMPOTENCY_LIFETIME` returns the same new job. Its deadline is as long
        as the old one's was, and its webhook tells the same. Raises `JobNotFinished`,
        `JobSucceeded`, `JobErased` (docs/decisions/0004), and what `submit` raises for a model or
        pool that the catalog has no more.
        """
        check_resubmittable(old)
        seconds = (old.deadline_at - old.created_at).total_seconds() if old.deadline_at else None
        job = self._new_job(
            old.tenant,
            old.generation,
            seconds,
            tags=old.tags,
            traceparent=traceparent,
            webhook=old.webhook.in_state(WebhookState.WAITING) if old.webhook else None,
            partial_images=old.partial_images,
            resubmitted_from=old.id,
        )
        pictures = await self._input_pictures(old)
        return await self._admit(job, pictures, _resubmission(old))

    async def _admit(
        self, job: Job, pictures: Mapping[str, bytes], idempotency: Idempotency | None
    ) -> Job:
        """Store the pictures, record the job, send it; or return what the key made before."""
        async with self._caps.room_for(job.tenant, job.estimated_gpu_seconds):
            await self._lines.check(job)
            for name, png in pictures.items():
                await self._images.put(job.id, name, png)
            created = await self._jobs.create(job, idempotency)
        if not created.is_new and pictures:
            await self._images.delete(job.id)
        if created.is_new:
            self._lines.joined(created.job)
            self._note(created.job)
        if created.job.sent_at is None and created.job.status is JobState.NOT_STARTED:
            return await self.send(created.job)
        return created.job

    async def _input_pictures(self, job: Job) -> dict[str, bytes]:
        asked = {INPUT_IMAGE: job.generation.image, INPUT_MASK: job.generation.mask_image}
        try:
            return {
                name: await self._images.get(job.id, name)
                for name, summary in asked.items()
                if summary is not None
            }
        except ImageNotFound:  # an erase takes the pictures first, then the record
            raise JobErased("the job's input pictures are gone", target="job_id") from None

    async def send(self, job: Job) -> Job:
        """Enqueue a recorded job and note that; return the record as it is then known.

        Never raises for an unavailable backend: what is not confirmed is sent again later.
        """
        queue = self._queues.get(job.pool)
        if queue is None:  # the catalog lost the pool since the job was admitted
            self._log.error("pool_unknown", pool=job.pool, **job.log_context())
            return job
        try:
            await queue.send(message_for(job))
        except QueueUnavailable as error:
            self._log.warning("send_failed", code=error.code, pool=job.pool, **job.log_context())
            return job
        try:
            return await self._jobs.compare_and_set(mark_sent(job, self._clock.now()), job.version)
        except VersionConflict:  # a worker was faster, or somebody canceled: both know the message
            return await self._jobs.get(job.id)
        except StoreUnavailable as error:
            self._log.warning("mark_sent_failed", code=error.code, **job.log_context())
            return job

    async def withdraw(self, job: Job) -> None:
        """Take the message of a job that ended before it ran out of its queue, if it can be found.

        Never raises for an unavailable queue: a worker that is given the message completes it.
        """
        queue = self._queues.get(job.pool)
        if queue is None:
            return
        try:
            await queue.withdraw(job.id)
        except QueueUnavailable as error:
            self._log.info("not_withdrawn", code=error.code, pool=job.pool, **job.log_context())

    def _new_job(
        self, tenant: str, generation: Generation, deadline_seconds: float | None, **asked: Any
    ) -> Job:
        now = self._clock.now()
        gpu_seconds = self._catalog.model(generation.model).gpu_seconds(generation)
        pool = self._catalog.route(generation.model, gpu_seconds)
        deadline = deadline_seconds
        return Job(
            id=new_job_id(self._region, tenant),
            tenant=tenant,
            pool=pool.name,
            generation=generation,
            estimated_gpu_seconds=gpu_seconds,
            created_at=now,
            updated_at=now,
            deadline_at=None if deadline is None else now + timedelta(seconds=deadline),
            **asked,
        )

    def _note(self, job: Job) -> None:
        self._metrics.jobs_admitted.labels(job.generation.model, job.pool).inc()
        self._log.info(
            "admit",
            trace_id=trace_id(job.traceparent),
            prompt_hash=prompt_hash(job.generation.prompt),
            pool=job.pool,
            gpu_seconds=round(job.estimated_gpu_seconds, 3),
            parameters=job.generation.without_content(),
            **job.log_context(),
        )


def check_resubmittable(job: Job) -> None:
    """Raise `JobNotFinished`, `JobSucceeded` or `JobErased` for a job that cannot run again."""
    if not job.status.is_terminal:
        raise JobNotFinished(f"the job is {job.status}: only an ended one can be resubmitted")
    if job.status is JobState.SUCCEEDED:
        raise JobSucceeded("the job has its pictures; submit a new one for others")
    if job.erased_at is not None:
        raise JobErased("what the job asked for was erased")


def _resubmission(job: Job) -> Idempotency:
    """The old id is the key. No caller can send one that begins with a control character."""
    digest = hashlib.sha256(job.id.encode()).hexdigest()
    return Idempotency(f"\x1fresubmit {job.id}", digest)


def fingerprint(request: GenerationRequest) -> str:
    """Return the SHA-256 (hex) of what is asked; spelling out a default changes nothing."""
    said = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


async def _prepare(request: GenerationRequest, catalog: Catalog) -> Resolved:
    if request.image is None:
        return Resolved(resolve(request, catalog, None), {})
    choose_model(request, catalog)  # before the work of decoding
    return await asyncio.to_thread(_prepare_pictures, request, catalog)


def _prepare_pictures(request: GenerationRequest, catalog: Catalog) -> Resolved:
    """Decode and store-ready the input pictures at the output's size. Slow: run in a thread."""
    assert request.image is not None
    image = decode(request.image, "image")
    generation = resolve(request, catalog, Sides(image.width, image.height))
    sides = (generation.width, generation.height)
    first = fit(image, *sides, mode="RGB")
    if request.mask_image is None:
        summary = generation.model_copy(update={"image": first.summary})
        return Resolved(summary, {INPUT_IMAGE: first})
    mask = decode(request.mask_image, "mask_image")
    if mask.size != image.size:
        raise InvalidInput(
            f"mask_image must have the size of image, {image.width} x {image.height} pixels",
            target="mask_image",
        )
    second = fit(mask, *sides, mode="L")
    both = {"image": first.summary, "mask_image": second.summary}
    return Resolved(generation.model_copy(update=both), {INPUT_IMAGE: first, INPUT_MASK: second})
