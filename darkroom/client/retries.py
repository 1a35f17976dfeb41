"""When a call is sent again: the connection failed, or the API said 429 or 503."""

import random
from dataclasses import dataclass

import httpx

RETRIED_STATUSES = frozenset({429, 503})
BASE_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 8.0


@dataclass(frozen=True)
class Retries:
    """How often, and up to which ``Retry-After`` it is worth waiting (seconds)."""

    attempts: int = 2
    max_wait_seconds: float = 30.0

    def pause(self, done: int, answer: httpx.Response | None) -> float | None:
        """Return the seconds to wait before retry ``done`` + 1, or None to give up.

        ``answer`` is None where the connection failed. A server that asks for more time than
        ``max_wait_seconds`` gets its way: the caller hears its answer at once.
        """
        if done >= self.attempts:
            return None
        if answer is None:
            return _backoff(done)
        if answer.status_code not in RETRIED_STATUSES:
            return None
        asked = answer.headers.get("retry-after", "")
        if not asked.isdigit():  # a date, or nothing
            return _backoff(done)
        return float(asked) if float(asked) <= self.max_wait_seconds else None


def _backoff(done: int) -> float:
    """Return exponential back-off with jitter: half of it fixed, half at random."""
    full = min(MAX_BACKOFF_SECONDS, BASE_SECONDS * 2.0**done)
    return full * (0.5 + random.random() / 2)  # noqa: S311 - spreads callers, hides nothing
