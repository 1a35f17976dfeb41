"""Stores that fail on purpose: wrappers that stand before any adapter and inject faults by seed.

A storage call can be delayed, fail before it took effect, or take effect and then fail, which is
what a lost answer looks like: the caller cannot know. Every fault is written to a ledger file as it
happens, one kind a line, so that a run reports what was really injected, even by processes that
were killed.
"""

import asyncio
import inspect
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from darkroom.errors import StoreUnavailable

T = TypeVar("T")

KINDS = ("storage_delayed", "storage_failed", "storage_answer_lost")


class Faults:
    """Decides, call by call, what goes wrong. ``rate`` is the share of calls that are hit."""

    def __init__(self, seed: int, rate: float, ledger: Path) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self._ledger = ledger

    def note(self, kind: str) -> None:
        """Append one injected fault to the ledger, in one write so that processes do not mix."""
        descriptor = os.open(self._ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{kind}\n".encode())
        os.close(descriptor)

    async def around(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call, perhaps late, perhaps not at all, perhaps without its answer."""
        if self._random.random() >= self._rate:
            return await call()
        kind = self._random.choice(KINDS)
        self.note(kind)
        if kind == "storage_delayed":
            await asyncio.sleep(self._random.uniform(0.05, 0.5))
            return await call()
        if kind == "storage_answer_lost":
            await call()
        raise StoreUnavailable("injected by the chaos run")


class Faulty:
    """Any store, with faults before its calls; `close` is let through."""

    def __init__(self, inner: object, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._inner, name)
        if name == "close" or not inspect.iscoroutinefunction(real):
            return real

        async def call(*args: Any, **named: Any) -> Any:
            return await self._faults.around(lambda: real(*args, **named))

        return call
