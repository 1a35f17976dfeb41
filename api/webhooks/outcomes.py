"""What an attempt came to, and what becomes of its message: the rules, without any I/O.

- 2xx: delivered.
- 410: the receiver wants nothing more of this job; nothing is tried again.
- everything else, redirects and every failure to connect included: again after the next wait of
  the schedule, until the last; then the message is set aside with the reason.
"""

from dataclasses import dataclass

from darkroom.webhooks import MAX_ATTEMPTS, RETRY_SECONDS

GONE_STATUS = 410
EXHAUSTED = "WebhookRetriesExhausted"
DELIVERED, DISABLED = "Delivered", "Disabled"


@dataclass(frozen=True)
class Outcome:
    """``code`` is one of a few words, fit for a metric's label."""

    code: str
    is_settled: bool = False


def outcome_of(status: int) -> Outcome:
    """Return what an answer's status means."""
    if 200 <= status < 300:
        return Outcome(DELIVERED, is_settled=True)
    if status == GONE_STATUS:
        return Outcome(DISABLED, is_settled=True)
    return Outcome(f"Status{status // 100}xx")


def retry_seconds(attempt: int) -> float | None:
    """Return how long to wait after the failed ``attempt``, the first being 1; None for never."""
    return RETRY_SECONDS[attempt - 1] if attempt < MAX_ATTEMPTS else None
