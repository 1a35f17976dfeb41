"""A job's ordinary way through the worker."""

import hashlib
import io

import numpy as np
from PIL import Image

from darkroom.imagestores.base import output_name
from darkroom.jobs import JobState, Phase
from tests.worker.site import Site
from worker.engines.fake import FakeEngine, fake_picture


async def test_a_job_ends_succeeded_with_its_pictures_and_its_message_gone(site: Site) -> None:
    job_id = await site.submit(num_images=2, seed=11)
    async with site.worker():
        job = await site.ended(job_id)
        await site.settled()
    assert (job.status, job.phase, job.progress) == (JobState.SUCCEEDED, Phase.DONE, 1.0)
    assert job.attempts == 1
    assert [image.seed for image in job.images] == [11, 12]
    for image in job.images:
        png = await site.images.get(job_id, output_name(image.index))
        assert hashlib.sha256(png).hexdigest() == image.sha256
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        drawn = fake_picture(job.generation.prompt, image.seed, 64, 64)
        assert np.array_equal(pixels, np.asarray(drawn))


async def test_usage_and_provenance_say_what_the_job_took(site: Site) -> None:
    job_id = await site.submit(num_inference_steps=10)
    async with site.worker(FakeEngine(step_seconds=0.01)):
        job = await site.ended(job_id)
    assert 0.1 <= job.usage.gpu_seconds < 5
    assert job.usage.store_seconds > 0
    assert job.usage.queue_seconds >= 0
    assert job.usage.cost_usd == site.pool.cost_usd(job.usage.gpu_seconds) > 0
    assert job.provenance is not None
    assert (job.provenance.device, job.provenance.scheduler) == ("fake", "DDIMScheduler")
    assert job.provenance.model_revision == "1"


async def test_many_jobs_run_one_after_the_other(site: Site) -> None:
    ids = [await site.submit(seed=number) for number in range(20)]
    async with site.worker():
        jobs = [await site.ended(job_id) for job_id in ids]
    assert {job.status for job in jobs} == {JobState.SUCCEEDED}
    assert {job.attempts for job in jobs} == {1}


async def test_metrics_count_the_finished_job(site: Site) -> None:
    job_id = await site.submit()
    async with site.worker():
        await site.ended(job_id)
        await site.settled()
    labels = {"model": "demo", "pool": "short", "status": "Succeeded", "code": ""}
    counted = site.metrics.registry.get_sample_value("darkroom_jobs_finished_total", labels)
    assert counted == 1.0
    ended = {"model": "demo", "pool": "short", "status": "Succeeded"}
    job = await site.jobs.get(job_id)
    lasted = site.metrics.registry.get_sample_value("darkroom_job_seconds_sum", ended)
    assert lasted == job.lasted_seconds() > job.usage.queue_seconds
    in_flight = site.metrics.registry.get_sample_value("darkroom_jobs_in_flight", {"pool": "short"})
    assert in_flight == 0.0
