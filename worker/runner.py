"""One delivery from claim to finished record: claim, generate, store, finish.

Order of effects: pictures stored, then the record finished, then (by the loop) the message
completed. Every change of the record goes through the claim, so an attempt that was overtaken
publishes nothing. What went wrong is turned into a disposition by `worker.failures`.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass

from PIL.Image import Image
from structlog.contextvars import bound_contextvars

from darkroom.catalog import Catalog, Model, Pool
from darkroom.clock import Clock
from darkroom.errors import DarkroomError, DeviceLost, GenerationFailed, UnsupportedMessage
from darkroom.generation import Generation
from darkroom.imagestores.base import INPUT_IMAGE, INPUT_MASK, ImageStore, output_name
from darkroom.jobs import Job, JobImage, Phase, Provenance, Usage, succeed
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger, prompt_hash
from darkroom.messages import decode
from darkroom.metrics import WorkerMetrics
from darkroom.tracing import span, trace_id
from worker import png
from worker.claims import Claim, take
from worker.delivery import Delivery
from worker.dispositions import Complete, Disposition
from worker.engine_thread import EngineThread
from worker.engines.base import GenerationStopped, GenerationTask
from worker.failures import AlreadyClaimed, Failures
from worker.models import locate
from worker.stopping import JobCanceled
from worker.watch import WatchPace, refuse_if_over, watched

log = get_logger()


@dataclass(frozen=True)
class Workplace:
    """What every job of this worker shares. ``claim_seconds`` is the queue's lease time."""

    catalog: Catalog
    pool: Pool
    jobs: JobStore
    images: ImageStore
    engine: EngineThread
    clock: Clock
    metrics: WorkerMetrics
    pace: WatchPace
    claim_seconds: float
    image_digest: str = ""


class Runner:
    """Runs deliveries; returns what is to become of each message.

    ``device_lost`` is set once the device is of no more use: nothing should be run from then on.
    """

    def __init__(self, place: Workplace, failures: Failures) -> None:
        self.device_lost: DeviceLost | None = None
        self._place = place
        self._failures = failures

    async def run(self, delivery: Delivery) -> Disposition:
        """Run one delivery. Its record is final, released or another's when this returns."""
        try:
            message = decode(delivery.lease.body)
        except UnsupportedMessage as error:
            return await self._failures.unreadable(delivery, error)
        trace = trace_id(message.traceparent)
        with (
            bound_contextvars(**({} if trace is None else {"trace_id": trace})),
            span("job", message.traceparent, job_id=message.job_id, model=message.model),
        ):
            return await self._run(delivery, message.job_id)

    async def _run(self, delivery: Delivery, job_id: str) -> Disposition:
        place = self._place
        try:
            delivery.stop.check()
            if delivery.is_spare:
                raise GenerationFailed(
                    "the workers that ran the job died, on each of its deliveries"
                )
            claim = await take(
                place.jobs, job_id, place.clock, place.claim_seconds, self._failures.may_start
            )
        except (DarkroomError, AlreadyClaimed, JobCanceled) as error:
            return await self._failures.unclaimed(delivery, error)
        delivery.hold(claim)
        hashed = prompt_hash(claim.job.generation.prompt)
        log.info("job_claimed", prompt_hash=hashed, **claim.job.log_context())
        try:
            await self._produce(delivery, claim)
        except Exception as error:  # noqa: BLE001 -- a pipeline raises anything; the job ends by it
            if isinstance(error, DeviceLost):
                self.device_lost = error
            return await self._failures.claimed(delivery, claim, error)
        return Complete()

    async def _produce(self, delivery: Delivery, claim: Claim) -> None:
        """Generate, store and finish. Raises what stopped it."""
        place, asked = self._place, claim.job.generation
        model = place.catalog.model(asked.model)
        task = await delivery.insist(lambda: self._task(claim.job))
        await self._load(delivery, claim, model)
        pictures = await self._generate(delivery, claim, task)
        started = time.perf_counter()
        files = await self._encode(asked, pictures, model)
        images = await self._store(delivery, claim, files)
        store_seconds = time.perf_counter() - started
        usage = claim.spent.on_top_of(claim.job.usage, place.pool)
        usage = usage.model_copy(update={"store_seconds": store_seconds})
        await self._finish(delivery, claim, images, usage, self._provenance(asked, model))

    async def _task(self, job: Job) -> GenerationTask:
        """Fetch the pictures that the job starts from."""
        asked, images = job.generation, self._place.images
        return GenerationTask(
            asked,
            image=await images.get(job.id, INPUT_IMAGE) if asked.image else None,
            mask_image=await images.get(job.id, INPUT_MASK) if asked.mask_image else None,
        )

    async def _load(self, delivery: Delivery, claim: Claim, model: Model) -> None:
        """Have ``model`` loaded."""
        with span("load", model=model.name):
            folder = await asyncio.to_thread(locate, model, self._place.catalog)
            await self._place.engine.load(model, folder, delivery.stop, claim.spent)
        if seconds := claim.spent.load_seconds:
            self._place.metrics.load_seconds.labels(model.name).observe(seconds)

    async def _generate(
        self, delivery: Delivery, claim: Claim, task: GenerationTask
    ) -> list[Image]:
        place, stop = self._place, delivery.stop
        stop.check()
        with span("generate", steps=task.generation.num_inference_steps):
            async with watched(claim, stop, place.clock, place.pace) as watch:
                try:
                    (pictures,) = await place.engine.generate([task], watch.on_step, claim.spent)
                except GenerationStopped:
                    stop.check()
                    raise
        return pictures

    async def _encode(self, asked: Generation, pictures: list[Image], model: Model) -> list[bytes]:
        return await asyncio.gather(
            *(
                asyncio.to_thread(png.encode, picture, asked, index, model.revision)
                for index, picture in enumerate(pictures)
            )
        )

    async def _store(self, delivery: Delivery, claim: Claim, files: list[bytes]) -> list[JobImage]:
        """Put the pictures, once the record has confirmed that the attempt is still current."""
        place, asked = self._place, claim.job.generation
        await delivery.insist(lambda: claim.report(Phase.STORING, asked.num_inference_steps))
        refuse_if_over(claim, delivery.stop, place.clock.now())
        delivery.stop.check()
        with span("store", images=len(files)):
            for index, file in enumerate(files):
                name = output_name(index)
                await delivery.insist(
                    lambda name=name, file=file: place.images.put(  # type: ignore[misc]
                        claim.job.id, name, file, attempt=claim.attempt
                    )
                )
        return [
            JobImage(
                index=index,
                width=asked.width,
                height=asked.height,
                sha256=hashlib.sha256(file).hexdigest(),
                seed=asked.seeds[index],
            )
            for index, file in enumerate(files)
        ]

    async def _finish(
        self,
        delivery: Delivery,
        claim: Claim,
        images: list[JobImage],
        usage: Usage,
        provenance: Provenance,
    ) -> None:
        """Write the last record. A cancel that came after the storing began comes too late."""

        def last(job: Job) -> Job:
            return succeed(
                job,
                claim.attempt,
                self._place.clock.now(),
                images=images,
                usage=usage,
                provenance=provenance,
            )

        job = await delivery.insist(lambda: claim.change(last))
        self._count(job)

    def _count(self, job: Job) -> None:
        metrics, labels = self._place.metrics, (job.generation.model, self._place.pool.name)
        metrics.jobs_finished.labels(*labels, job.status, "").inc()
        metrics.job_seconds.labels(*labels, job.status).observe(job.lasted_seconds())
        metrics.queue_seconds.labels(*labels).observe(job.usage.queue_seconds)
        metrics.gpu_seconds.labels(*labels).observe(job.usage.gpu_seconds)
        metrics.store_seconds.labels(*labels).observe(job.usage.store_seconds)
        log.info("job_succeeded", **job.usage.model_dump(), **job.log_context())

    def _provenance(self, asked: Generation, model: Model) -> Provenance:
        description = self._place.engine.description
        return Provenance(
            model_revision=model.revision,
            image_digest=self._place.image_digest,
            scheduler=asked.scheduler,
            device=description.device,
            libraries=dict(description.libraries),
        )
