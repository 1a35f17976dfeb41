"""What the chaos run asks of every admitted job when the dust has settled."""

import hashlib
import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from darkroom.imagestores.base import ImageStore, output_name
from darkroom.jobs import Job, JobState
from worker.engines.fake import fake_picture


@dataclass
class Verdict:
    """Job ids by what is the matter with them; a sound run has none."""

    lost: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)


def same_end(first: Job, now: Job) -> bool:
    """Whether the end that was seen first is the end that stands."""
    seen, stands = ((job.status, job.finished_at, job.images, job.error) for job in (first, now))
    return seen == stands


def right_pixels(job: Job, index: int, png: bytes) -> bool:
    """Whether a stored picture is the one that its record and its seed say."""
    asked = job.generation
    image = job.images[index]
    if hashlib.sha256(png).hexdigest() != image.sha256 or image.seed != asked.seeds[index]:
        return False
    expected = fake_picture(asked.prompt, image.seed, asked.width, asked.height)
    return np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(expected))


async def audit(
    jobs: Mapping[str, Job],
    first_ends: Mapping[str, Job],
    images: ImageStore,
    names_of: Callable[[str], Awaitable[set[str]]],
) -> Verdict:
    """Check every record. ``first_ends`` are the records as first seen in a terminal state."""
    verdict = Verdict()
    for job_id, job in jobs.items():
        if not job.status.is_terminal or job.status is JobState.FAILED:
            verdict.lost.add(job_id)
            continue
        if job_id in first_ends and not same_end(first_ends[job_id], job):
            verdict.doubled.add(job_id)
        if job.status is JobState.CANCELED:
            if job.images:
                verdict.wrong.add(job_id)
            continue
        names = {output_name(index) for index in range(job.generation.num_images)}
        if len(job.images) != len(names) or not await names_of(job_id) >= names:
            verdict.wrong.add(job_id)
            continue
        if await names_of(job_id) > names:
            verdict.doubled.add(job_id)
        for index in range(len(names)):
            if not right_pixels(job, index, await images.get(job_id, output_name(index))):
                verdict.wrong.add(job_id)
    return verdict
