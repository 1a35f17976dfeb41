"""The last part of a job: pictures to files, files to the store, the record to its end.

It runs while the device works on the next batch. Encoding is on threads of its own, beside the
event loop and the engine.
"""

import asyncio
import hashlib
import time

from PIL.Image import Image

from darkroom.catalog import Model
from darkroom.generation import Generation
from darkroom.imagestores.base import output_name
from darkroom.jobs import Job, JobImage, Phase, Provenance, Usage, succeed
from darkroom.log import get_logger
from darkroom.tracing import span
from worker import png
from worker.claims import Claim
from worker.delivery import Delivery
from worker.watch import refuse_if_over
from worker.workplace import Workplace

log = get_logger()


class Finishing:
    """Stores what was made, then says so in the record."""

    def __init__(self, place: Workplace) -> None:
        self._place = place

    async def finish(
        self, delivery: Delivery, claim: Claim, pictures: list[Image], model: Model
    ) -> None:
        """Encode, store and finish. Raises what stopped it."""
        place, asked = self._place, claim.job.generation
        started = time.perf_counter()
        files = await _encode(asked, pictures, model)
        images = await self._store(delivery, claim, files)
        store_seconds = time.perf_counter() - started
        usage = claim.spent.on_top_of(claim.job.usage, place.pool)
        usage = usage.model_copy(update={"store_seconds": store_seconds})
        await self._end(delivery, claim, images, usage, self._provenance(asked, model))

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

    async def _end(
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


async def _encode(asked: Generation, pictures: list[Image], model: Model) -> list[bytes]:
    return await asyncio.gather(
        *(
            asyncio.to_thread(png.encode, picture, asked, index, model.revision)
            for index, picture in enumerate(pictures)
        )
    )
