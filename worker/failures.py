"""What becomes of a job that could not be run to its end: the rules, and the record they write.

Retryable errors give the job back, with back-off, until the last delivery; terminal ones end it at
once. A message is set aside only after its record says Failed with the same code: while the record
cannot be written, the message is given back uncounted.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from darkroom.catalog import Pool
from darkroom.clock import Clock
from darkroom.errors import (
    DarkroomError,
    DeadlineExceeded,
    DeviceLost,
    GenerationFailed,
    IllegalTransition,
    JobNotFound,
    LeaseLost,
    Preempted,
    Retryable,
    StaleAttempt,
    StoreUnavailable,
    UnsupportedMessage,
    VersionConflict,
)
from darkroom.jobs import (
    Job,
    JobError,
    JobState,
    cancel,
    check_attempt,
    fail,
    is_claimed,
    release,
    report,
)
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger
from darkroom.metrics import WorkerMetrics
from worker.backoff import Backoff
from worker.claims import Claim
from worker.delivery import Delivery
from worker.dispositions import Abandon, Complete, DeadLetter, Disposition, Gone
from worker.stopping import JobCanceled

log = get_logger()

CLAIMED = "AlreadyClaimed"

GONE = DeadLetter(JobNotFound.code, "the job has no record")


class AlreadyClaimed(Exception):
    """The job has ended, or an attempt elsewhere may still be running it."""

    def __init__(self, job: Job) -> None:
        super().__init__(CLAIMED)
        self.job = job


class MustRunAlone(Exception):
    """The job's last attempt was not heard of again: this one must put no other job at risk."""


@dataclass(frozen=True)
class Failures:
    """The rules for the jobs of one pool."""

    jobs: JobStore
    clock: Clock
    backoff: Backoff
    metrics: WorkerMetrics
    pool: Pool

    def may_start(self, job: Job, delivery: Delivery, is_alone: bool) -> None:
        """Refuse a job that is over, claimed elsewhere, canceled, too late or used up, by raising.

        Raises `MustRunAlone` for one whose last attempt was not heard of again, unless it
        ``is_alone``: what killed that worker shall not take other jobs with it a second time.
        """
        now = self.clock.now()
        if job.status.is_terminal or is_claimed(job, now):
            raise AlreadyClaimed(job)
        if job.cancel_requested:
            raise JobCanceled
        if job.deadline_at is not None and job.deadline_at <= now:
            raise DeadlineExceeded("the job's deadline passed before it was started")
        has_died = job.status is JobState.RUNNING
        is_spare = delivery.lease.delivery_count > delivery.max_delivery_count
        if has_died and is_spare and delivery.is_last(job.attempts):
            raise GenerationFailed("the workers that ran the job died, on each of its deliveries")
        if has_died and not is_alone:
            raise MustRunAlone

    async def unreadable(self, delivery: Delivery, error: UnsupportedMessage) -> Disposition:
        """Give back a message that cannot be read: a newer release may know it, until the last."""
        if not delivery.is_counted_out:
            return self._later(delivery, error)
        return await self._end_unclaimed(delivery, delivery.lease.message_id, error)

    async def unclaimed(self, delivery: Delivery, job_id: str, error: Exception) -> Disposition:
        """Decide on a delivery that was not claimed, because of ``error``."""
        if isinstance(error, AlreadyClaimed):
            return self._yield_to(error.job)
        if isinstance(error, JobNotFound):
            return GONE
        meaning = _meaning(delivery, error)
        if isinstance(meaning, Preempted | LeaseLost):
            return Abandon(meaning.code, counted=False)
        if isinstance(meaning, Retryable) and not delivery.is_counted_out:
            return self._later(delivery, meaning)
        return await self._end_unclaimed(delivery, job_id, meaning)

    async def claimed(
        self, delivery: Delivery, claim: Claim, error: Exception, had_mates: bool = False
    ) -> Disposition:
        """Decide on a claimed job that ``error`` stopped; end or release its record.

        With mates (``had_mates``), nobody knows which of them cost the worker its device. So their
        records are left as those of a worker that died: each runs alone next time.
        """
        meaning = _meaning(delivery, error)
        log.info("job_stopped", code=_code(meaning), **_origin(error), **claim.job.log_context())
        try:
            if isinstance(meaning, DeviceLost) and had_mates:
                later = self._later(delivery, meaning)
                return await self._return(delivery, claim, later, as_if_dead=True)
            return await self._claimed(delivery, claim, meaning)
        except (StaleAttempt, IllegalTransition):
            return await self._overtaken(claim)
        except JobNotFound:
            return GONE
        except StoreUnavailable as outage:
            return self._uncounted(delivery, outage)

    async def _claimed(self, delivery: Delivery, claim: Claim, error: Exception) -> Disposition:
        then: Disposition
        match error:
            case StaleAttempt() | JobNotFound():
                raise error
            case LeaseLost():
                await claim.change(self._give_back(claim))  # so that the next need not wait
                return Gone()
            case Preempted():
                return await self._return(delivery, claim, Abandon(error.code, counted=False))
            case StoreUnavailable():  # an outage fails no job; where one cannot be read, others can
                delay = self.backoff.delay(error, claim.attempt)
                then = Abandon(error.code, delay_seconds=delay, counted=False)
                return await self._return(delivery, claim, then)
            case Retryable() if not delivery.is_last(claim.attempt):
                return await self._return(delivery, claim, self._later(delivery, error))
            case Retryable():
                then = DeadLetter(error.code, error.message)
            case _:
                then = Complete()
        return await self._write(delivery, claim, error, then)

    async def _return(
        self, delivery: Delivery, claim: Claim, then: Abandon, as_if_dead: bool = False
    ) -> Disposition:
        """Release the claimed record, then give the message back so."""
        give_back = self._give_back(claim, as_if_dead)
        job = await delivery.insist(lambda: claim.change(give_back))
        if not job.status.is_terminal:
            return then
        self._count_end(job)
        return Complete()

    async def _write(
        self, delivery: Delivery, claim: Claim, error: Exception, then: Disposition
    ) -> Disposition:
        """End the claimed record as ``error`` asks, then settle so."""

        def last(job: Job) -> Job:
            check_attempt(job, claim.attempt)
            return self._ended(self._charged(job, claim), error)

        self._count_end(await delivery.insist(lambda: claim.change(last)))
        return then

    def _give_back(self, claim: Claim, as_if_dead: bool = False) -> Callable[[Job], Job]:
        """Release the record, unless a cancel was asked for meanwhile.

        ``as_if_dead``: only let the claim run out, as that of a worker that died.
        """

        def give_back(job: Job) -> Job:
            check_attempt(job, claim.attempt)
            job, now = self._charged(job, claim), self.clock.now()
            if job.cancel_requested:
                return cancel(job, now)
            if as_if_dead:
                phase, step = job.phase, job.step
                return report(job, claim.attempt, now, phase=phase, step=step, claim_seconds=0)
            return release(job, claim.attempt, now)

        return give_back

    def _charged(self, job: Job, claim: Claim) -> Job:
        """Note what the attempt has cost, though nothing came of it."""
        usage = claim.spent.on_top_of(job.usage, self.pool)
        return job.model_copy(update={"usage": usage})

    async def _end_unclaimed(
        self, delivery: Delivery, job_id: str, error: Exception
    ) -> Disposition:
        """End the record of a job that nobody runs, as ``error`` asks."""
        aside = _then(error)
        try:
            return await delivery.insist(lambda: self._end(delivery, job_id, error, aside))
        except JobNotFound:
            return aside if isinstance(aside, DeadLetter) else GONE
        except StoreUnavailable as outage:
            return self._uncounted(delivery, outage)

    async def _end(
        self, delivery: Delivery, job_id: str, error: Exception, then: Disposition
    ) -> Disposition:
        while True:
            job = await self.jobs.get(job_id)
            if job.status.is_terminal or is_claimed(job, self.clock.now()):
                return self._yield_to(job)
            if isinstance(error, Retryable) and not delivery.is_last(job.attempts):
                return self._uncounted(delivery, error)
            try:
                written = await self.jobs.compare_and_set(self._ended(job, error), job.version)
            except VersionConflict:
                continue
            self._count_end(written)
            return then

    def _ended(self, job: Job, error: Exception) -> Job:
        now = self.clock.now()
        if not isinstance(error, DarkroomError):
            return cancel(job, now)
        why = JobError(code=error.code, message=error.message, target=error.target)
        return fail(job, now, why)

    async def _overtaken(self, claim: Claim) -> Disposition:
        try:
            return self._yield_to(await claim.refresh())
        except JobNotFound:
            return GONE
        except StoreUnavailable:
            return Abandon(CLAIMED, counted=False)

    def _yield_to(self, job: Job) -> Disposition:
        """Leave a job to whoever has it: done with when it is over, else back after its claim."""
        if job.status.is_terminal:
            return Complete()
        left = 0.0
        if job.claim_expires_at is not None:
            left = max(0.0, (job.claim_expires_at - self.clock.now()).total_seconds())
        return Abandon(CLAIMED, delay_seconds=left, counted=False)

    def _later(self, delivery: Delivery, error: DarkroomError) -> Abandon:
        """Give back with back-off; uncounted when only the record keeps the job from its end."""
        delay = self.backoff.delay(error, delivery.lease.delivery_count)
        return Abandon(error.code, delay_seconds=delay, counted=not delivery.is_counted_out)

    def _uncounted(self, delivery: Delivery, error: DarkroomError) -> Abandon:
        delay = self.backoff.delay(error, delivery.lease.delivery_count)
        return Abandon(error.code, delay_seconds=delay, counted=False)

    def _count_end(self, job: Job) -> None:
        code = job.error.code if job.error else ""
        labels = (job.generation.model, self.pool.name, job.status)
        self.metrics.jobs_finished.labels(*labels, code).inc()
        self.metrics.job_seconds.labels(*labels).observe(job.lasted_seconds())
        log.info("job_ended", status=job.status, code=code, **job.log_context())


def _then(error: Exception) -> Disposition:
    """What a message comes to whose job was ended by ``error`` without being claimed."""
    if isinstance(error, Retryable | UnsupportedMessage):
        return DeadLetter(error.code, error.message)
    return Complete()


def _code(error: Exception) -> str:
    return error.code if isinstance(error, DarkroomError) else type(error).__name__


def _origin(error: Exception) -> dict[str, str]:
    """For logs: where an error that is none of ours came from. Not its text: see `_meaning`."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, DarkroomError | JobCanceled) or not frames:
        return {}
    return {
        "error": type(error).__name__,
        "raised_at": f"{frames[-1].filename}:{frames[-1].lineno}",
    }


def _meaning(delivery: Delivery, error: Exception) -> Exception:
    """The error to act on: why the job was told to stop comes before what followed from it."""
    reason = delivery.stop.reason
    if reason is not None and not isinstance(error, StaleAttempt):
        return reason
    if isinstance(error, DarkroomError | JobCanceled):
        return error
    # the text of a pipeline's error may quote the prompt: only its type is told
    return GenerationFailed(f"the pipeline raised {type(error).__name__}")
