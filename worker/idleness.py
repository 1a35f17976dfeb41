"""Leaving when there is nothing to do: for workers that are Jobs, which Kubernetes makes anew."""

import asyncio
from collections.abc import Callable

from worker.drain import Drain

LOOKS = 10  # within the time that a worker may be idle


async def leave_when_idle(is_idle: Callable[[], bool], idle_seconds: float, drain: Drain) -> None:
    """Begin ``drain`` once ``is_idle`` has held for ``idle_seconds``; 0 never does.

    A message that is leased in that very moment is given back uncounted, as in every drain.
    """
    seen = 0
    while idle_seconds and seen <= LOOKS:
        seen = seen + 1 if is_idle() else 0
        await asyncio.sleep(idle_seconds / LOOKS)
    if idle_seconds:
        drain.begin("idle")
