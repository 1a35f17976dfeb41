"""A cluster in small: workers on a queue, a scrape now and then, and nodes that go.

It plays what happens between two decisions of the autoscaler, in steps of five seconds, and notes
every busy worker that had to leave although its being busy could be known.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from tests.charts.autoscaling import Keda


@dataclass(frozen=True)
class Weather:
    """What happens around the autoscaler in one run; times in seconds."""

    locked_are_active: bool
    jobs: tuple[tuple[int, int], ...]  # (arrives, takes)
    losses: tuple[int, ...] = ()  # a node goes, with the busiest replica on it
    away: tuple[tuple[str, int, int], ...] = ()  # (type of trigger, from, to): cannot be read
    start_seconds: int = 120  # a node, an image, a model
    scrape_seconds: int = 30
    window: bool = False  # workers hold a share of the backlog beside what they run


@dataclass
class Replica:
    """One pod. ``until`` is when what it runs ends, one entry for each job."""

    number: int
    ready_at: int
    until: list[int] = field(default_factory=list)
    busy_since: int = 0
    held: deque[int] = field(default_factory=deque)


@dataclass
class Seen:
    """What a run showed."""

    unneeded_evictions: list[str] = field(default_factory=list)
    late_evictions: int = 0
    ended: int = 0
    replicas: int = 0
    largest: int = 0
    last_end: int = 0
    at_rest_since: int | None = None


class Cluster:
    """Workers on a queue: each takes up to ``concurrency`` jobs when it has none, as one batch."""

    def __init__(self, spec: Mapping[str, Any], weather: Weather, concurrency: int) -> None:
        self.keda, self.weather, self.concurrency = Keda(spec), weather, concurrency
        self.replicas: list[Replica] = []
        self.waiting: deque[int] = deque()
        self.running: dict[int, list[int]] = {}
        self.seen = Seen()
        self._number = 0
        self._scraped = (0, 0)  # when, how many were busy
        self._target = 0

    def run(self, until: int, tick: int = 5) -> Seen:
        """Play ``until`` seconds."""
        arrivals, losses = deque(sorted(self.weather.jobs)), deque(sorted(self.weather.losses))
        for now in range(0, until, tick):
            self._work(now)
            while arrivals and arrivals[0][0] <= now:
                self.waiting.append(arrivals.popleft()[1])
            while losses and losses[0] <= now:
                losses.popleft()
                self._lose_one()
            self._lease(now)
            if now % self.weather.scrape_seconds == 0:
                self._scraped = (now, sum(1 for one in self.replicas if one.until))
            self._target = self.keda.decide(now, self._target, self._readings(now))
            self._reconcile(now)
            self._note(now, bool(arrivals))
        return self.seen

    def _work(self, now: int) -> None:
        for one in self.replicas:
            left = [end for end in one.until if end > now]
            if len(left) < len(one.until):
                self.seen.ended += len(one.until) - len(left)
                self.seen.last_end = now
                one.until = left

    def _lease(self, now: int) -> None:
        ready = [one for one in self.replicas if one.ready_at <= now]
        for one in ready:
            line = one.held or self.waiting
            if one.until or not line:
                continue
            taken = [line.popleft() for _ in range(min(self.concurrency, len(line)))]
            if one.number not in self.running:
                one.busy_since = now
            one.until = [now + takes for takes in taken]
            self.running[one.number] = taken
        for one in self.replicas:
            if not one.until:
                self.running.pop(one.number, None)
        if self.weather.window:
            self._hold(ready)

    def _hold(self, ready: list[Replica]) -> None:
        """Lease ahead: a fair share of all messages if the pool were at its largest."""
        messages = len(self.waiting) + sum(len(one.until) + len(one.held) for one in self.replicas)
        fair = ceil(messages / self.keda.hpa.most)
        for one in ready:
            while self.waiting and len(one.until) + len(one.held) < fair:
                one.held.append(self.waiting.popleft())

    def _readings(self, now: int) -> dict[str, float | None]:
        locked = sum(len(one.until) + len(one.held) for one in self.replicas)
        messages = len(self.waiting) + (locked if self.weather.locked_are_active else 0)
        values: dict[str, float | None] = {
            "azure-servicebus": float(messages),
            "prometheus": float(self._scraped[1]),
        }
        for kind, begins, ends in self.weather.away:
            if begins <= now < ends:
                values[kind] = None
        return values

    def _lose_one(self) -> None:
        if self.replicas:
            gone = max(self.replicas, key=lambda one: len(one.until))
            self.replicas.remove(gone)
            self.waiting.extendleft(self.running.pop(gone.number, []) if gone.until else [])
            self.waiting.extend(gone.held)

    def _reconcile(self, now: int) -> None:
        """Do as the ReplicaSet controller: idle before busy (deletion cost), young before old."""
        while len(self.replicas) < self._target:
            self._number += 1
            self.replicas.append(Replica(self._number, now + self.weather.start_seconds))
        extra = len(self.replicas) - self._target
        order = sorted(
            self.replicas, key=lambda one: (one.ready_at <= now, bool(one.until), -one.number)
        )
        leaving = order[:extra]
        busy = [one for one in leaving if one.until]
        if busy and any(not one.until for one in order[extra:]):
            self.seen.unneeded_evictions.append(f"{now} s: a busy one left, an idle one stayed")
        # What nobody could know: these took a job after the reading that was decided on.
        unknown = sum(
            1 for one in self.replicas if one.until and one.busy_since >= self._scraped[0]
        )
        if len(busy) > unknown:
            self.seen.unneeded_evictions.append(
                f"{now} s: {len(busy)} busy of {len(order)} had to go"
            )
        self.seen.late_evictions += len(busy)
        for one in leaving:
            self.replicas.remove(one)
            # It drains: its jobs end within the grace period, and what it held goes back.
            self.waiting.extend(one.held)
            self.seen.ended += len(one.until)
            self.running.pop(one.number, None)

    def _note(self, now: int, more_to_come: bool) -> None:
        self.seen.replicas = len(self.replicas)
        self.seen.largest = max(self.seen.largest, len(self.replicas))
        at_rest = not (self.replicas or self.waiting or more_to_come)
        if not at_rest:
            self.seen.at_rest_since = None
        elif self.seen.at_rest_since is None:
            self.seen.at_rest_since = now
