"""A job's webhook: where its one event goes, and how far that event has come.

A job ends once, so it has one event. The record that ends the job says ``pending`` in the same
write; the event's message follows, and then ``queued`` (`darkroom.announcing`). So no event is lost
with the process that ended the job: what stays ``pending`` is found and sent.

The waits between attempts are those that Standard Webhooks recommends.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

QUEUE_NAME = "webhooks"
MAX_URL_CHARACTERS = 2_048
RETRY_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_ATTEMPTS = 1 + len(RETRY_SECONDS)
MAX_DELIVERY_COUNT = MAX_ATTEMPTS + 2  # of the queue: two senders may die during the last attempt

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")

WebhookEvent = Literal["job.succeeded", "job.failed", "job.canceled"]
ALL_EVENTS: tuple[WebhookEvent, ...] = ("job.succeeded", "job.failed", "job.canceled")


class WebhookState(StrEnum):
    """How far the event is; one documented line per state."""

    WAITING = "waiting"
    """The job has not ended."""
    UNWANTED = "unwanted"
    """The job ended with an event that the caller did not ask for."""
    PENDING = "pending"
    """The job has ended; the queue has not confirmed the event."""
    QUEUED = "queued"
    """The event is in the queue, being delivered, or delivered."""
    DISABLED = "disabled"
    """The receiver answered 410: it wants nothing more of this job."""


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("must be a URL") from None
    if not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("must name a host in ASCII (punycode for others)")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: deliveries are signed instead")
    if "#" in url:
        raise ValueError("must not have a fragment")
    return url


WebhookUrl = Annotated[
    str,
    StringConstraints(max_length=MAX_URL_CHARACTERS, pattern=r"^https?://[!-~]+$"),
    AfterValidator(_checked),
]
WebhookEvents = Annotated[
    tuple[WebhookEvent, ...], Field(min_length=1, max_length=len(ALL_EVENTS), strict=False)
]


class Webhook(BaseModel):
    """What a record keeps of it. The URL may hold a secret of the receiver's: never log it."""

    model_config = ConfigDict(frozen=True)

    url: str = Field(repr=False)
    events: tuple[WebhookEvent, ...] = ALL_EVENTS
    state: WebhookState = WebhookState.WAITING

    def ended(self, event: str) -> "Webhook":
        """Return it once the job has ended with ``event``."""
        state = WebhookState.PENDING if event in self.events else WebhookState.UNWANTED
        return self.in_state(state)

    def in_state(self, state: WebhookState) -> "Webhook":
        """Return it with another state."""
        return self.model_copy(update={"state": state})
