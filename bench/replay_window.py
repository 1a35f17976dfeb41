"""The replay of our own policy: the functions of worker/scheduler.py, on leased windows."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.replay_batching import ALONE, Batching
from bench.replay_pool import LOAD_MEAN_SECONDS, Device, Outcome, Pool, Setting
from bench.replay_trace import TraceJob
from worker.scheduler import (
    Candidate,
    Rules,
    WorkerState,
    bound_seconds,
    choose,
    evict_order,
    overtaken,
    surplus,
    window_size,
)

NOTICE_SECONDS = 5.0
"""How often a worker reads the queue's depth while its device is busy and another's is free."""

HOP_SECONDS = 0.2
"""From a free worker's abandoning a message until another free worker has it."""

RECENT = 200
"""How many models, tenants and passed ids a worker remembers."""


@dataclass
class Held:
    """A worker: its device, its window, and what runs."""

    device: Device
    window: dict[str, Candidate] = field(default_factory=dict)
    running: int = 0
    line_empty: bool = True
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    served: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    passed: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))


@dataclass
class Ledger:
    """What the bound is checked with, in seconds.

    ``extra``: by job, for how long it was overtaken, by all workers that held it. ``bound``: the
    most that it was allowed at any decision. ``over``: the most by which any was exceeded, and
    ``misjudged`` the same when batches are counted with what they were estimated to take.
    """

    extra: list[float]
    bound: list[float]
    over: float = 0.0
    misjudged: float = 0.0
    gave_back: int = 0
    handed_on: int = 0

    def decide(self, window: Sequence[Candidate], bound: float) -> None:
        for candidate in window:
            number = int(candidate.job_id)
            self.bound[number] = max(self.bound[number], bound)

    def charge(self, held: Candidate, actual: float, estimated: float) -> None:
        number = int(held.job_id)
        self.extra[number] += actual
        if actual > 0:
            room = self.bound[number] - held.overtaken_seconds
            self.over = max(self.over, actual - room)
            self.misjudged = max(self.misjudged, estimated - room)


class Darkroom:
    """Workers that lease their windows from one queue and choose by worker/scheduler.py."""

    def __init__(self, pool: Pool, rules: Rules, batching: Batching) -> None:
        self._pool = pool
        self._rules = rules
        self._batching = batching
        self._queue: deque[Candidate] = deque()
        self._workers = [Held(device) for device in pool.devices]
        self._turn = deque(self._workers)
        self._active = 0
        self._reviewing = False
        self._means = Means()
        self.ledger = Ledger([0.0] * len(pool.jobs), [0.0] * len(pool.jobs))

    def arrive(self, job: TraceJob) -> None:
        self._active += 1
        self._queue.append(self._candidate(job))
        self._offer()

    def _candidate(self, job: TraceJob) -> Candidate:
        return Candidate(
            job_id=f"{job.number:08}",
            tenant=job.tenant,
            model=job.model,
            key=(job.kind, job.steps),
            pictures=job.images,
            gpu_seconds=self._means.estimate(job),
            load_seconds=LOAD_MEAN_SECONDS,
            admitted_at=self._pool.now,
            solo=job.loras > 0,
        )

    def _offer(self) -> None:
        """Let workers with room take what waits: the free ones first, else by turns."""
        while self._queue:
            ready = [worker for worker in self._turn if self._room(worker) > 0]
            if not ready:
                return
            worker = next((worker for worker in ready if not worker.running), ready[0])
            self._turn.remove(worker)
            self._turn.append(worker)
            if worker.running:
                self._lease(worker, 1)
            else:
                self._next(worker)

    def _room(self, worker: Held) -> int:
        share = window_size(
            self._active,
            len(self._workers),
            self._batching.jobs,
            self._rules.most,
            worker.running,
        )
        return max(share, 0 if worker.running else 1) - len(worker.window)

    def _lease(self, worker: Held, most: int) -> None:
        for _ in range(min(most, len(self._queue))):
            candidate = self._queue.popleft()
            worker.window[candidate.job_id] = candidate
        worker.line_empty = not self._queue

    def _next(self, worker: Held) -> None:
        """The device is free: fill the window, choose, run."""
        self._lease(worker, self._room(worker))
        window = tuple(worker.window.values())
        if not window:
            self._review_soon()
            return
        state = self._state(worker)
        decision = choose(window, state, self._rules)
        if not decision.run:
            self._hand_on(worker, decision.give_back)
            return
        self.ledger.decide(window, bound_seconds(window, state, self._rules))
        self._run(worker, decision.run, window)
        self._give_back(worker, decision.give_back)

    def _state(self, worker: Held) -> WorkerState:
        return WorkerState(
            now=self._pool.now,
            loaded=tuple(worker.device.loaded),
            capacity=self._batching.jobs,
            max_pictures=self._batching.pictures,
            active=self._active,
            replicas=len(self._workers),
            line_empty=worker.line_empty,
            served=tuple(worker.served),
            passed=worker.passed,
        )

    def _hand_on(self, worker: Held, job_ids: Sequence[str]) -> None:
        worker.passed.extend(job_ids)
        self.ledger.handed_on += len(job_ids)
        given = [worker.window.pop(job_id) for job_id in job_ids]

        def come() -> None:
            self._queue.extend(given)
            self._offer()

        self._pool.at(self._pool.now + HOP_SECONDS, come)

    def _give_back(self, worker: Held, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self._queue.append(replace(worker.window.pop(job_id), overtaken_seconds=0.0))
            self.ledger.gave_back += 1
        if job_ids:
            self._offer()

    def _run(self, worker: Held, run: Sequence[str], window: Sequence[Candidate]) -> None:
        jobs = [self._pool.jobs[int(job_id)] for job_id in run]
        batch = [worker.window.pop(job_id) for job_id in run]
        worker.running = len(run)
        worker.served.extend(candidate.tenant for candidate in batch)
        worker.recent.extend(candidate.model for candidate in batch)
        device, waiting = worker.device, worker.window.values()
        expected = 0.0 if jobs[0].model in device.loaded else LOAD_MEAN_SECONDS
        loading = self._pool.load(
            device, jobs[0].model, lambda: evict_order(device.loaded, waiting, worker.recent)[0]
        )
        running = self._batching.seconds(jobs)
        charges = overtaken(window, run, loading, running)
        foreseen = overtaken(window, run, expected, sum(c.gpu_seconds for c in batch))
        end = self._pool.run(jobs, loading, running)
        self._pool.at(end, lambda: self._end(worker, jobs, charges, foreseen))

    def _end(
        self,
        worker: Held,
        jobs: Sequence[TraceJob],
        charges: dict[str, float],
        foreseen: dict[str, float],
    ) -> None:
        for job in jobs:
            self._means.learn(job)
        for job_id, seconds in charges.items():
            if candidate := worker.window.get(job_id):
                self.ledger.charge(candidate, seconds, foreseen[job_id])
                so_far = candidate.overtaken_seconds + seconds
                worker.window[job_id] = replace(candidate, overtaken_seconds=so_far)
        self._active -= len(jobs)
        worker.running = 0
        self._next(worker)

    def _review_soon(self) -> None:
        if not self._reviewing and any(worker.window for worker in self._workers):
            self._reviewing = True
            self._pool.at(self._pool.now + NOTICE_SECONDS, self._review)

    def _review(self) -> None:
        """Busy workers read the depth again, and give back what has become too much."""
        self._reviewing = False
        for worker in self._workers:
            if worker.running and worker.window:
                state = replace(self._state(worker), line_empty=not self._queue)
                held = tuple(worker.window.values())
                self._give_back(worker, surplus(held, state, self._rules, worker.running))
        if any(not worker.running for worker in self._workers):
            self._review_soon()


class Means:
    """Estimates from the jobs that have ended: the mean of a model's with as many images."""

    def __init__(self) -> None:
        self._sums: dict[object, tuple[float, int]] = {}

    def learn(self, job: TraceJob) -> None:
        for kind in ((job.model, job.images), job.model, None):
            total, count = self._sums.get(kind, (0.0, 0))
            self._sums[kind] = (total + job.seconds, count + 1)

    def estimate(self, job: TraceJob) -> float:
        for kind in ((job.model, job.images), job.model, None):
            if kind in self._sums:
                total, count = self._sums[kind]
                return total / count
        return LOAD_MEAN_SECONDS


def darkroom(
    jobs: Sequence[TraceJob], setting: Setting, rules: Rules, batching: Batching = ALONE
) -> tuple[Outcome, Ledger]:
    """Play our policy. Raises `RuntimeError` if it left a job unstarted."""
    pool = Pool(jobs, setting)
    ours = Darkroom(pool, rules, batching)
    outcome = pool.play(ours.arrive)
    if any(math.isnan(start) for start in outcome.starts):
        raise RuntimeError("a job was never started")
    return outcome, ours.ledger
