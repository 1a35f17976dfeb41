"""Jobs whose message the queue itself set aside, because no worker lived to say why.

A worker that gives up on a job writes the record first. One that dies takes its word with it: after
the last delivery the queue dead-letters the message alone, and the record would say Running for
ever. So the sweeper looks at the dead letters, and ends those jobs with the queue's reason.

A worker that dies costs a delivery to every message that it held, also to those whose job it had
not begun. A job that was not run as often as its message was delivered did nothing wrong: its
message is put back, with a count that starts anew.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from api.dead_letters import end_set_aside
from darkroom.clock import Clock
from darkroom.errors import DeadLetterNotFound, JobNotFound, QueueUnavailable
from darkroom.jobs import Job, is_claimed
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger
from darkroom.queues.base import MAX_DELIVERY_COUNT_EXCEEDED, DeadLetter, JobQueue

LOOKED_AT = 1_000  # of a pool's oldest dead letters; beyond them, operators have older work to do

log = get_logger()


class Exhausted:
    """Remembers which dead letters need no further look, so that each costs one record read."""

    def __init__(self, queues: Mapping[str, JobQueue], jobs: JobStore, clock: Clock) -> None:
        self._queues = queues
        self._jobs = jobs
        self._clock = clock
        self._settled: dict[str, frozenset[str]] = {}

    async def end(self) -> int:
        """End the jobs that nobody runs any more; return how many. Raises `StoreUnavailable`.

        A queue that cannot be reached is passed over.
        """
        total = 0
        for pool, queue in self._queues.items():
            try:
                letters = await queue.dead_letters(LOOKED_AT)
            except QueueUnavailable as error:
                log.warning("dead_letters_unread", pool=pool, code=error.code)
                continue
            total += await self._end(pool, letters)
        return total

    async def _end(self, pool: str, letters: Sequence[DeadLetter]) -> int:
        known = self._settled.get(pool, frozenset())
        given_up = [one for one in letters if one.reason == MAX_DELIVERY_COUNT_EXCEEDED]
        settled = {one.message_id for one in given_up} & known
        ended = 0
        for letter in given_up:
            if letter.message_id in settled:
                continue
            was_ended = await self._end_job(pool, letter)
            ended += was_ended is True
            if was_ended is not None:
                settled.add(letter.message_id)
        self._settled[pool] = frozenset(settled)
        return ended

    async def _end_job(self, pool: str, letter: DeadLetter) -> bool | None:
        """Return whether the job was ended here, or None to look again: it is still in the game."""
        try:
            job = await self._jobs.get(letter.message_id)
        except JobNotFound:
            return False
        if await self._is_put_back(pool, letter, job):
            return None
        text = f"{letter.delivery_count} deliveries ended without a word from their worker"
        if await end_set_aside(self._jobs, self._clock, job, letter.reason, text):
            return True
        return False if job.status.is_terminal else None

    async def _is_put_back(self, pool: str, letter: DeadLetter, job: Job) -> bool:
        """Put the message of a bystander back; return whether it is one."""
        queue, now = self._queues[pool], self._clock.now()
        was_run_each_time = job.attempts >= letter.delivery_count - 1  # the spare one runs nothing
        if was_run_each_time or not queue.holds_ahead:
            return False
        if job.status.is_terminal or is_claimed(job, now):
            return False
        with suppress(DeadLetterNotFound, QueueUnavailable):  # another replica's hand was faster
            await queue.resubmit(letter.message_id)
            log.info("bystander_put_back", pool=pool, **job.log_context())
        return True
