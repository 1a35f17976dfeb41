"""What was set aside, for operators: find, inspect, resubmit, discard. No web framework here.

Resubmit and discard leave every job with one end, whatever its record says:

- resubmit, record Failed or Canceled: a new job is admitted (docs/decisions/0004), then the dead
  letter goes. Dying in between is repaired by asking again: the same new job comes back.
- resubmit, record not ended, none, or a message that cannot be read: the message goes back to its
  queue, with a delivery count that starts anew. What is still poison comes back here.
- discard: a job that has not ended, and that nobody runs, fails with the dead letter's reason; then
  the dead letter goes.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from api.admission import Admission
from darkroom.clock import Clock
from darkroom.errors import (
    DeadLetterNotFound,
    InvalidInput,
    JobNotFound,
    UnsupportedMessage,
    VersionConflict,
)
from darkroom.jobs import Job, JobError, fail, is_claimed
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger
from darkroom.messages import JobMessage, decode
from darkroom.queues.base import DeadLetter, JobQueue

MAX_LOOKED_AT = 5_000  # of a pool's oldest dead letters, when one is sought by its id

log = get_logger()


@dataclass(frozen=True)
class SetAside:
    """A dead letter, what its message says if it can be read, and the job's record if there is one.

    ``unreadable`` is why the message cannot be read.
    """

    pool: str
    letter: DeadLetter
    message: JobMessage | None
    unreadable: str | None
    job: Job | None


@dataclass(frozen=True)
class Resubmitted:
    """What a resubmit did: admitted ``new_job``, or without one gave the message back."""

    new_job: Job | None


class DeadLetters:
    """The dead letters of every pool."""

    def __init__(
        self,
        queues: Mapping[str, JobQueue],
        jobs: JobStore,
        admission: Admission,
        clock: Clock,
    ) -> None:
        self._queues = queues
        self._jobs = jobs
        self._admission = admission
        self._clock = clock

    async def list(self, pool: str | None, limit: int) -> list[SetAside]:
        """Return up to ``limit``, oldest first, of one pool or of all.

        Costs one look at each queue and one record read per dead letter. Raises `InvalidInput` for
        an unknown pool, `QueueUnavailable`, `StoreUnavailable`.
        """
        if pool is not None and pool not in self._queues:
            known = ", ".join(self._queues)
            raise InvalidInput(f"pool is not in the catalog; it has: {known}", target="pool")
        names = list(self._queues) if pool is None else [pool]
        found = [
            (name, letter)
            for name in names
            for letter in await self._queues[name].dead_letters(limit)
        ]
        found.sort(key=lambda each: each[1].enqueued_at)
        return await asyncio.gather(*(self._look(*each) for each in found[:limit]))

    async def get(self, pool: str, message_id: str) -> SetAside:
        """Return one of the pool's oldest `MAX_LOOKED_AT`. Raises `DeadLetterNotFound`."""
        for letter in await self._queue(pool).dead_letters(MAX_LOOKED_AT):
            if letter.message_id == message_id:
                return await self._look(pool, letter)
        raise DeadLetterNotFound(
            f"the pool's oldest {MAX_LOOKED_AT:,} dead letters have no such message",
            target="message_id",
        )

    async def resubmit(self, pool: str, message_id: str) -> Resubmitted:
        """Run it again, as a new job or as the same message.

        Raises `DeadLetterNotFound` (also when it was done before), `JobSucceeded` and `JobErased`
        for a job that cannot run again, and what `Admission.resubmit` raises.
        """
        aside = await self.get(pool, message_id)
        job = aside.job
        if job is None or not job.status.is_terminal:
            await self._queue(pool).resubmit(message_id)
            self._note("dead_letter_returned", aside)
            return Resubmitted(None)
        new = await self._admission.resubmit(job)
        await self._drop(aside)
        self._note("dead_letter_resubmitted", aside)
        return Resubmitted(new)

    async def discard(self, pool: str, message_id: str) -> None:
        """Remove it for good. Raises `DeadLetterNotFound` (also when it was done before)."""
        aside = await self.get(pool, message_id)
        if aside.job is not None:
            text = "its message was set aside, and discarded by an operator"
            await end_set_aside(self._jobs, self._clock, aside.job, aside.letter.reason, text)
        await self._drop(aside)
        self._note("dead_letter_discarded", aside)

    async def _drop(self, aside: SetAside) -> None:
        with suppress(DeadLetterNotFound):  # another operator's hand was faster
            await self._queue(aside.pool).discard(aside.letter.message_id)

    def _queue(self, pool: str) -> JobQueue:
        if pool not in self._queues:
            raise DeadLetterNotFound("there is no pool of that name", target="pool")
        return self._queues[pool]

    async def _look(self, pool: str, letter: DeadLetter) -> SetAside:
        message, unreadable = None, None
        try:
            message = decode(letter.body)
        except UnsupportedMessage as error:
            unreadable = error.message
        try:
            job = await self._jobs.get(message.job_id if message else letter.message_id)
        except JobNotFound:
            job = None
        return SetAside(pool, letter, message, unreadable, job)

    def _note(self, event: str, aside: SetAside) -> None:
        context = aside.job.log_context() if aside.job else {}
        log.info(event, pool=aside.pool, reason=aside.letter.reason, **context)


async def end_set_aside(jobs: JobStore, clock: Clock, job: Job, reason: str, message: str) -> bool:
    """Fail a job whose message was set aside; return whether that was done.

    A job that has ended stays; so does one that an attempt holds, which ends it by itself.
    """
    while True:
        now = clock.now()
        if job.status.is_terminal or is_claimed(job, now):
            return False
        error = JobError(code=reason or "DeadLettered", message=message)
        try:
            await jobs.compare_and_set(fail(job, now, error), job.version)
        except VersionConflict:
            job = await jobs.get(job.id)
        else:
            log.info("job_ended", status="Failed", code=error.code, **job.log_context())
            return True
