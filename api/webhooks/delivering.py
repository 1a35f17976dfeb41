"""One leased message: read the job, sign, post, settle.

Nothing here waits for anything but the receiver, and for that no longer than the poster allows, so
a lease outlasts it without renewal (`api.webhooks.wiring` refuses settings under which it would
not). Dying before the message is settled makes the receiver hear the same event again, with the
same webhook id.
"""

import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from api.webhooks.lanes import Lane, Lanes
from api.webhooks.outcomes import DISABLED, EXHAUSTED, Outcome, outcome_of, retry_seconds
from api.webhooks.payloads import payload_of
from api.webhooks.posting import DeliveryFailed, Poster
from api.webhooks.secrets import Secrets
from api.webhooks.signing import headers_for
from darkroom.clock import Clock
from darkroom.errors import (
    JobNotFound,
    LeaseLost,
    QueueUnavailable,
    StoreUnavailable,
    UnsupportedMessage,
    VersionConflict,
)
from darkroom.jobs import Job, mark_webhook
from darkroom.jobstores.base import JobStore
from darkroom.log import get_logger
from darkroom.messages import WebhookMessage, decode_webhook
from darkroom.metrics import WebhookMetrics
from darkroom.queues.base import Lease
from darkroom.webhooks import Webhook, WebhookState

OUTAGE_SECONDS = 5.0
BUSY = "ReceiverBusy"

log = get_logger()


@dataclass(frozen=True)
class Delivering:
    """What every delivery of this sender shares."""

    jobs: JobStore
    secrets: Secrets
    poster: Poster
    lanes: Lanes
    clock: Clock
    metrics: WebhookMetrics
    base_url: str

    async def handle(self, lease: Lease) -> None:
        """Deliver one message and settle it. Raises nothing that a backend or receiver may do."""
        try:
            await self._handle(lease)
        except (StoreUnavailable, QueueUnavailable) as error:
            log.warning("webhook_put_off", code=error.code, message_id=lease.message_id)
            await self._put_off(lease)
        except LeaseLost:  # another sender has it, and the receiver may hear it twice
            log.warning("webhook_lease_lost", message_id=lease.message_id)

    async def _put_off(self, lease: Lease) -> None:
        try:
            await lease.abandon(delay_seconds=OUTAGE_SECONDS, counted=False)
        except (QueueUnavailable, LeaseLost):
            return  # it comes back when the lease runs out

    async def _handle(self, lease: Lease) -> None:
        try:
            message = decode_webhook(lease.body)
            job = await self.jobs.get(message.job_id)
        except (UnsupportedMessage, JobNotFound) as error:
            await lease.dead_letter(error.code, error.message)
            return
        if job.webhook is None or job.webhook.state is WebhookState.DISABLED:
            await lease.complete()
            return
        lanes = _lanes(job, job.webhook)
        away_seconds = self.lanes.enter(lanes, time.monotonic())
        if away_seconds:
            self.metrics.attempts.labels(BUSY).inc()
            await lease.abandon(delay_seconds=away_seconds, counted=False)
            return
        began = time.monotonic()
        try:
            outcome = await self._attempt(job, job.webhook, message)
        finally:
            self.lanes.leave(lanes, time.monotonic() - began)
        self.metrics.attempts.labels(outcome.code).inc()
        self.metrics.attempt_seconds.observe(time.monotonic() - began)
        await self._settle(lease, job, message, outcome)

    async def _attempt(self, job: Job, webhook: Webhook, message: WebhookMessage) -> Outcome:
        secrets = self.secrets.of(job.tenant)
        if not secrets:
            return Outcome("NoSecret")
        body = payload_of(job, self.base_url)
        headers = headers_for(message.webhook_id, self.clock.now(), body, secrets)
        try:
            return outcome_of(await self.poster.post(webhook.url, headers, body))
        except DeliveryFailed as error:
            return Outcome(error.code)

    async def _settle(
        self, lease: Lease, job: Job, message: WebhookMessage, outcome: Outcome
    ) -> None:
        attempt = lease.delivery_count
        context = {"outcome": outcome.code, "attempt": attempt, "event_type": message.event}
        log.info("webhook_attempt", **context, job_id=job.id, tenant=job.tenant)
        if outcome.is_settled:
            if outcome.code == DISABLED:
                await self._disable(job)
            await lease.complete()
            return
        wait_seconds = retry_seconds(attempt)
        if wait_seconds is None:
            self.metrics.dead_lettered.inc()
            await lease.dead_letter(EXHAUSTED, f"attempt {attempt} was the last: {outcome.code}")
        else:
            await lease.abandon(delay_seconds=wait_seconds)

    async def _disable(self, job: Job) -> None:
        """Note that the receiver wants nothing more, whoever else writes the record."""
        while True:
            try:
                asked = mark_webhook(job, self.clock.now(), WebhookState.DISABLED)
                await self.jobs.compare_and_set(asked, job.version)
            except VersionConflict:
                job = await self.jobs.get(job.id)
            else:
                return


def _lanes(job: Job, webhook: Webhook) -> tuple[Lane, Lane]:
    return ("host", urlsplit(webhook.url).hostname or ""), ("tenant", job.tenant)
