"""What becomes of a delivered message: the value that the runner returns and the loop settles."""

from dataclasses import dataclass

from darkroom.errors import LeaseLost
from darkroom.queues.base import Lease


@dataclass(frozen=True)
class Complete:
    """The record has said its last word: remove the message."""


@dataclass(frozen=True)
class Abandon:
    """Give the message back after a delay; ``code`` says why."""

    code: str
    delay_seconds: float = 0.0
    counted: bool = True


@dataclass(frozen=True)
class DeadLetter:
    """Set the message aside: the record, if there is one, says Failed with the same code."""

    code: str
    description: str


@dataclass(frozen=True)
class Gone:
    """The lease was lost: the message is no longer ours to settle."""


Disposition = Complete | Abandon | DeadLetter | Gone


async def settle(lease: Lease, disposition: Disposition) -> Disposition:
    """Do what ``disposition`` says; return `Gone` when the lease turns out to be lost.

    Raises `QueueUnavailable`.
    """
    try:
        match disposition:
            case Complete():
                await lease.complete()
            case Abandon():
                await lease.abandon(
                    delay_seconds=disposition.delay_seconds, counted=disposition.counted
                )
            case DeadLetter():
                await lease.dead_letter(disposition.code, disposition.description)
            case Gone():
                pass
    except LeaseLost:
        return Gone()
    return disposition
