"""Whose seconds the engine's are: shared out by pictures among the jobs that are in the call.

A job that leaves a call is charged up to then; what the call takes after that is the others'. So
the bills of all jobs together are the seconds that the engine worked for them.
"""

import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from worker.claims import Spent

Doing = Literal["load", "generate"]


class Meter:
    """The bills of one batch. `running` is for the engine's thread, `leave` for the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bills: dict[Hashable, tuple[Spent, int]] = {}
        self._doing: Doing = "load"
        self._since = 0.0

    @contextmanager
    def running(self, doing: Doing, bills: Mapping[Hashable, tuple[Spent, int]]) -> Iterator[None]:
        """Charge the block to ``bills``: by job, what to add to, and its number of pictures."""
        with self._lock:
            self._bills, self._doing, self._since = dict(bills), doing, time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._charge()
                self._bills = {}

    def leave(self, job: Hashable) -> None:
        """Charge ``job`` nothing more."""
        with self._lock:
            self._charge()
            self._bills.pop(job, None)

    def _charge(self) -> None:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        pictures = sum(count for _, count in self._bills.values())
        for spent, count in self._bills.values():
            share = seconds * count / pictures
            if self._doing == "load":
                spent.load_seconds += share
            else:
                spent.gpu_seconds += share
