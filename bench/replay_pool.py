"""What every policy of a replay is played on: a clock, workers with pipelines, load times."""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.replay_trace import TraceJob

LOAD_MEDIAN_SECONDS = 23.0
LOAD_P90_SECONDS = 42.0
LOAD_SIGMA = math.log(LOAD_P90_SECONDS / LOAD_MEDIAN_SECONDS) / 1.2815515655446004
LOAD_MEAN_SECONDS = LOAD_MEDIAN_SECONDS * math.exp(LOAD_SIGMA**2 / 2)
"""As measured in the service that the trace is from; a log-normal through both."""


@dataclass(frozen=True)
class Setting:
    """What a replay is run with. ``speed`` divides the arrival times."""

    workers: int = 8
    fits: int = 3
    seed: int = 0
    speed: float = 1.0


@dataclass
class Outcome:
    """What a policy did. ``waits`` in seconds from arrival to start (its load counts as wait)."""

    run_seconds: float
    load_seconds: float
    loads: int
    starts: list[float]
    waits: list[float]
    end: float

    @property
    def gpu_seconds(self) -> float:
        return self.run_seconds + self.load_seconds


@dataclass
class Device:
    """One worker's device: ``loaded`` least recently used first."""

    number: int
    fits: int
    loaded: list[str] = field(default_factory=list)


class Pool:
    """The devices, the calendar of events, and the account of what was spent."""

    def __init__(self, jobs: Sequence[TraceJob], setting: Setting) -> None:
        self.jobs = jobs
        self.setting = setting
        self.devices = [Device(number, setting.fits) for number in range(setting.workers)]
        self.now = 0.0
        self._draw = random.Random(setting.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._run_seconds = self._load_seconds = 0.0
        self._loads = 0
        self._starts = [math.nan] * len(jobs)

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do ``act`` then; acts of one moment keep the order they were asked for in."""
        self._sequence += 1
        heapq.heappush(self._events, (when, self._sequence, act))

    def play(self, arrive: Callable[[TraceJob], None]) -> Outcome:
        """Let every job arrive, and go on until nothing is left to do."""
        for job in self.jobs:
            self.at(job.arrival / self.setting.speed, partial(arrive, job))
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
        waits = [
            start - job.arrival / self.setting.speed
            for start, job in zip(self._starts, self.jobs, strict=True)
        ]
        return Outcome(
            self._run_seconds, self._load_seconds, self._loads, self._starts, waits, self.now
        )

    def load(self, device: Device, model: str, evict: Callable[[], str] | None = None) -> float:
        """Make ``model`` the most recently used; return the seconds that loading it takes, or 0.

        The n-th load of every policy takes the same time: what is compared is how many there are.
        """
        if model in device.loaded:
            device.loaded.remove(model)
            device.loaded.append(model)
            return 0.0
        while len(device.loaded) >= device.fits:
            device.loaded.remove(evict() if evict else device.loaded[0])
        device.loaded.append(model)
        seconds = LOAD_MEDIAN_SECONDS * math.exp(self._draw.gauss(0, LOAD_SIGMA))
        self._loads += 1
        self._load_seconds += seconds
        return seconds

    def run(self, jobs: Sequence[TraceJob], load_seconds: float, run_seconds: float) -> float:
        """Count the jobs as started after the load; return the time at which they end."""
        start = self.now + load_seconds
        for job in jobs:
            self._starts[job.number] = start
        self._run_seconds += run_seconds
        return start + run_seconds


def busy_share(outcome: Outcome, workers: int) -> float:
    """GPU seconds by what the workers had from the first arrival until the last job ended."""
    return outcome.gpu_seconds / (workers * outcome.end) if outcome.end else 0.0
