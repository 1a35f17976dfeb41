"""One job from its turn to its finished record: claim, generate, store, finish.

Order of effects: pictures stored, then the record finished, then (by the loop) the message
completed. Every change of the record goes through the claim, so an attempt that was overtaken
publishes nothing. What went wrong is turned into a disposition by `worker.failures`.
"""

import asyncio
from pathlib import Path

from PIL.Image import Image
from structlog.contextvars import bound_contextvars

from darkroom.catalog import Model
from darkroom.errors import DarkroomError
from darkroom.imagestores.base import INPUT_IMAGE, INPUT_MASK
from darkroom.jobs import Job
from darkroom.log import get_logger, prompt_hash
from darkroom.messages import JobMessage, message_for
from darkroom.tracing import span, trace_id
from worker.batches import Seat, Work
from worker.claims import Claim, take
from worker.delivery import Delivery
from worker.dispositions import Complete, Disposition
from worker.engines.base import GenerationTask
from worker.failures import AlreadyClaimed, Failures
from worker.finishing import Finishing
from worker.models import locate
from worker.previews import JobPreviews
from worker.stopping import JobCanceled
from worker.watch import watched
from worker.workplace import Workplace

INPUT_TRIES = 4
"""Some two seconds: the job's mates and the device wait for it."""

log = get_logger()


class Runner:
    """Runs deliveries whose turn has come; returns what is to become of each message."""

    def __init__(self, place: Workplace, failures: Failures) -> None:
        self._place = place
        self._failures = failures
        self._finishing = Finishing(place)
        self._folders: dict[str, tuple[Model, Path]] = {}

    async def run(self, delivery: Delivery, message: JobMessage, seat: Seat) -> Disposition:
        """Run one delivery. Its record is final, released or another's when this returns.

        Raises `MustRunAlone`, with nothing done, for a job that is not to share its call.
        """
        trace = trace_id(message.traceparent)
        with (
            bound_contextvars(**({} if trace is None else {"trace_id": trace})),
            span("job", message.traceparent, job_id=message.job_id, model=message.model),
        ):
            return await self._run(delivery, message.job_id, seat)

    async def _run(self, delivery: Delivery, job_id: str, seat: Seat) -> Disposition:
        place, is_alone = self._place, seat.batch.alone
        try:
            delivery.stop.check()
            claim = await take(
                place.jobs,
                job_id,
                place.clock,
                place.claim_seconds,
                lambda job: self._failures.may_start(job, delivery, is_alone),
            )
        except (DarkroomError, AlreadyClaimed, JobCanceled) as error:
            return await self._failures.unclaimed(delivery, job_id, error)
        delivery.hold(claim)
        place.metrics.jobs_in_flight.labels(place.pool.name).inc()
        hashed = prompt_hash(claim.job.generation.prompt)
        log.info("job_claimed", prompt_hash=hashed, **claim.job.log_context())
        try:
            model = place.catalog.model(claim.job.generation.model)
            pictures = await self._generate(delivery, claim, model, seat)
            await self._finishing.finish(delivery, claim, pictures, model)
        except Exception as error:  # noqa: BLE001 -- a pipeline raises anything; the job ends by it
            had_mates = len(seat.batch.seats) > 1
            return await self._failures.claimed(delivery, claim, error, had_mates)
        return Complete()

    async def _generate(
        self, delivery: Delivery, claim: Claim, model: Model, seat: Seat
    ) -> list[Image]:
        """Fetch what the job starts from, and wait at its seat for its pictures."""
        place, asked = self._place, claim.job.generation
        folder = await self._folder(model)
        task = await delivery.insist(lambda: self._task(claim.job), INPUT_TRIES)
        delivery.stop.check()
        pace = place.pace.among(len(seat.batch.seats))
        with span("generate", steps=asked.num_inference_steps):
            async with watched(claim, delivery.stop, place.clock, pace) as watch:
                key = message_for(claim.job).batch_key  # the record's word, not the message's
                previews = JobPreviews(claim, place.images, claim.job.partial_images)
                work = Work(key, model, folder, task, claim.spent, watch.note, previews)
                try:
                    return await seat.pictures(work)
                finally:
                    await previews.close()

    async def _task(self, job: Job) -> GenerationTask:
        asked, images = job.generation, self._place.images
        return GenerationTask(
            asked,
            image=await images.get(job.id, INPUT_IMAGE) if asked.image else None,
            mask_image=await images.get(job.id, INPUT_MASK) if asked.mask_image else None,
        )

    async def _folder(self, model: Model) -> Path:
        """Return where the model's files are; looked for once. Raises `ModelUnavailable`."""
        known = self._folders.get(model.name)
        if known is None or known[0] != model:
            known = (model, await asyncio.to_thread(locate, model, self._place.catalog))
            self._folders[model.name] = known
        return known[1]
