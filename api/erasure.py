"""Erasing an ended job: pictures first, then the record, which is the word that it is done.

Dying between the two leaves a record that does not claim more than was done; asking again finishes
it. A worker that writes late cannot bring anything back: before it stores a picture its attempt
must be current, which no attempt of an ended job is, and the record lists no picture any more. What
is left is a worker that froze between that check and its write and wakes after the erase: it leaves
a file that no answer leads to, and that another erase of the job removes.
"""

from api.errors import JobNotFinished
from darkroom.clock import Clock
from darkroom.errors import VersionConflict
from darkroom.imagestores.base import ImageStore
from darkroom.jobs import Job, erase
from darkroom.jobstores.base import JobStore


async def erase_job(job: Job, jobs: JobStore, images: ImageStore, clock: Clock) -> Job:
    """Erase and return the record. Raises `JobNotFinished`, `StoreUnavailable`."""
    if not job.status.is_terminal:
        raise JobNotFinished(f"the job is {job.status}: cancel it first", target="job_id")
    await images.delete(job.id)
    while True:
        erased = erase(job, clock.now())
        if erased is job:
            return job
        try:
            return await jobs.compare_and_set(erased, job.version)
        except VersionConflict:  # somebody else erases it too
            job = await jobs.get(job.id)
