"""When the running batch will end, so that the next is ready then and not much sooner.

Everything here is measured while the worker works: how far a batch is, how long batches take
beside the catalog's estimate, and how long the next takes to be claimed and read.
"""

import math
import time

SMOOTHING = 0.3
"""Weight of the newest measurement in a moving average."""

SAFETY = 3.0
"""How many times its usual time the next batch is given to be ready in."""

SHORTEST_LEAD_SECONDS = 0.05
LONGEST_LEAD_SECONDS = 5.0
FIRST_GUESS_SECONDS = 0.03


class Progress:
    """How far one batch is. Written by the engine's thread, read by the event loop."""

    def __init__(self) -> None:
        self.total = 0
        self._made = 0
        self._began: float | None = None
        self._seen = (0.0, 0.0)  # pictures and when; replaced as one, so read without a lock

    def begin(self) -> None:
        """Note that a call begins."""
        if self._began is None:
            self._began = time.monotonic()

    def note(self, pictures: float) -> None:
        """Note that the present call is as far as so many whole pictures."""
        self._seen = (self._made + pictures, time.monotonic())

    def made(self, pictures: int) -> None:
        """Note that a call has ended with so many pictures."""
        self._made += pictures

    def remaining_seconds(self, expected_seconds: float) -> float:
        """Return when the batch will end, from now; infinity while it loads.

        Before anything of it is done, ``expected_seconds`` is what it takes in all.
        """
        if self._began is None:
            return math.inf
        pictures, seen = self._seen
        now = time.monotonic()
        if pictures <= 0:
            return expected_seconds - (now - self._began)
        rest = max(0.0, self.total - pictures) / pictures
        return (seen - self._began) * rest - (now - seen)


class Tempo:
    """How fast this worker is. For the event loop."""

    def __init__(self) -> None:
        self._prepare_seconds = FIRST_GUESS_SECONDS
        self._per_estimate: float | None = None

    @property
    def lead_seconds(self) -> float:
        """How long before the end of a batch the next is chosen."""
        lead = SAFETY * self._prepare_seconds
        return min(LONGEST_LEAD_SECONDS, max(SHORTEST_LEAD_SECONDS, lead))

    def expected_seconds(self, estimate: float) -> float:
        """Return what a batch will take that the catalog puts at ``estimate`` seconds.

        Infinity until one was measured.
        """
        return math.inf if self._per_estimate is None else estimate * self._per_estimate

    def prepared(self, seconds: float) -> None:
        """Note how long a batch took from its choice to being ready."""
        self._prepare_seconds += SMOOTHING * (seconds - self._prepare_seconds)

    def ran(self, estimate: float, seconds: float) -> None:
        """Note how long a batch took that the catalog puts at ``estimate`` seconds."""
        if estimate <= 0 or seconds <= 0:
            return
        ratio = seconds / estimate
        if self._per_estimate is None:
            self._per_estimate = ratio
        else:
            self._per_estimate += SMOOTHING * (ratio - self._per_estimate)
