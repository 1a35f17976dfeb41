"""Keeps a lease, and the claim that goes with it, alive for as long as the job runs.

Runs on the event loop; torch runs on a thread of its own, so a long step delays no renewal.
"""

import asyncio

from darkroom.clock import Clock
from darkroom.errors import (
    JobNotFound,
    LeaseLost,
    QueueUnavailable,
    StaleAttempt,
    StoreUnavailable,
)
from darkroom.jobs import Phase
from darkroom.log import get_logger
from darkroom.queues.base import Lease
from worker.claims import Claim
from worker.stopping import StopSignal
from worker.watch import refuse_if_over

RETRIES_PER_RENEWAL = 8  # a renewal that failed is tried again this often before the next is due

log = get_logger()


class Renewal:
    """The renewing of one lease every ``renew_seconds``.

    Once ``claim`` is set, the record's claim is extended with the lease. A lost lease, or renewals
    that fail until the lease has expired, set ``stop`` to `LeaseLost`; a claim that was overtaken
    sets it to `StaleAttempt`. A cancel or a deadline is seen here too: a job that waits for a load,
    for a store or for the batch before has no denoising steps at which `worker.watch` would look.
    """

    def __init__(self, lease: Lease, stop: StopSignal, clock: Clock, renew_seconds: float) -> None:
        self.claim: Claim | None = None
        self._lease = lease
        self._stop = stop
        self._clock = clock
        self._renew_seconds = renew_seconds

    async def run(self) -> None:
        """Renew until cancelled or until the lease is lost."""
        pause = self._renew_seconds
        while True:
            await asyncio.sleep(pause)
            try:
                await self._lease.renew()
                pause = self._renew_seconds
            except LeaseLost as error:
                self._stop.set(error)
                return
            except QueueUnavailable:
                if self._clock.now() >= self._lease.expires_at:
                    self._stop.set(LeaseLost("the queue did not answer until the lease expired"))
                    return
                pause = self._renew_seconds / RETRIES_PER_RENEWAL
                continue
            await self._extend_claim()

    async def _extend_claim(self) -> None:
        if self.claim is None:
            return
        try:
            job = await self.claim.report(step=self.claim.job.step)
            if job.phase is not Phase.STORING:  # by then it comes too late
                refuse_if_over(self.claim, self._stop, self._clock.now())
        except (StaleAttempt, JobNotFound) as error:
            self._stop.set(error)
        except StoreUnavailable:
            log.warning("claim_not_extended", job_id=self.claim.job.id)  # the fence still holds
