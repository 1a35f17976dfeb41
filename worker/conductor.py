"""Keeps the device at work: has the next batch ready when the running one ends.

At most two batches are with the engine's thread, the running one and the next; at most
`MOST_FINISHING` are being encoded and stored. The next is chosen as late as it can be (see
`worker.tempo`), so that it is chosen among as many jobs as possible, and so that jobs are claimed
only when they are about to run.
"""

import asyncio
import math
import time
from dataclasses import dataclass

from darkroom.errors import Preempted, UnknownModel
from worker.backlog import Backlog
from worker.batch_limits import BatchLimits, size_of
from worker.batches import Batch
from worker.calls import Calls
from worker.changes import Changes
from worker.lately import Lately
from worker.scheduler import (
    Candidate,
    Rules,
    WorkerState,
    choose,
    evict_order,
    overtaken,
    surplus,
)
from worker.tempo import Tempo
from worker.window import Window
from worker.workplace import Workplace

MOST_FINISHING = 2
NOT_NEEDED = Preempted("another worker of the pool is free")
HANDED_ON = Preempted("another free worker may have the model loaded")
LEAVING = Preempted("the worker is leaving")


@dataclass(frozen=True)
class Started:
    """A batch with the engine's thread; the window that it was chosen from, and its estimates."""

    batch: Batch
    calls: Calls
    window: tuple[Candidate, ...]
    run: tuple[str, ...]
    load_estimate_seconds: float
    estimate_seconds: float

    def expected_waits(self) -> dict[str, float]:
        """For how long it is expected to overtake the others of its window, by job id."""
        return overtaken(self.window, self.run, self.load_estimate_seconds, self.estimate_seconds)


class Conductor:
    """Chooses batches from the window and hands them to the engine.

    ``lost`` is set when the device failed for good: nothing is chosen from then on.
    """

    def __init__(
        self,
        place: Workplace,
        window: Window,
        backlog: Backlog,
        changes: Changes,
        rules: Rules,
        hands_on: bool,
    ) -> None:
        self._hands_on = hands_on
        self.lost = asyncio.Event()
        self._place = place
        self._window = window
        self._backlog = backlog
        self._changes = changes
        self._rules = rules
        self._lately = Lately()
        self._rests_until = 0.0
        self._limits = BatchLimits()
        self._tempo = Tempo()
        self._assembling: Batch | None = None
        self._started: list[Started] = []
        self._finishing = 0
        self._wants_quiet = False
        self._surplus: frozenset[str] = frozenset()
        self._left = asyncio.Event()

    @property
    def running(self) -> int:
        """How many jobs run or are about to: those whose turn has come and which still generate."""
        batches = [one.batch for one in self._started]
        if self._assembling is not None:
            batches.append(self._assembling)
        return sum(len(batch.seats) for batch in batches)

    def seconds_to_choice(self) -> float:
        """When the next batch is to be chosen, from now: 0 at once, infinity for not yet known."""
        if self._assembling or len(self._started) > 1 or self._finishing >= MOST_FINISHING:
            return math.inf
        if self._started and self._started[0].batch.alone:
            return math.inf
        if self._wants_quiet and (self._started or self._finishing):
            return math.inf
        if not self._started:
            return 0.0
        (one,) = self._started
        expected = self._tempo.expected_seconds(one.estimate_seconds)
        remaining = one.calls.progress.remaining_seconds(expected)
        return max(0.0, remaining - self._tempo.lead_seconds)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Work until `leave`. What it starts and does not wait for runs in ``tasks``."""
        while not self._left.is_set():
            seconds = self.seconds_to_choice()
            if seconds == 0 and len(self._window):
                await self._next_batch(tasks)
            elif seconds == 0:
                await self._changes.wait()
            else:
                await self._changes.wait(seconds)

    def seconds_to_rest(self) -> float:
        """For how long to leave the queue to other workers, to which a job was handed on."""
        return max(0.0, self._rests_until - time.monotonic())

    def leave(self) -> None:
        """Choose nothing more; stop what has not begun to run."""
        self._left.set()
        late = [one.batch for one in self._started[1:]]
        for batch in [*late, *([self._assembling] if self._assembling else [])]:
            batch.stop(LEAVING)
        self._changes.notify()

    def give_back_surplus(self) -> None:
        """Give back what other workers could start, if it was so the last time as well.

        On Service Bus that sends a copy, so it is not done for a passing dip.
        """
        window = self._candidates()
        self._return(surplus(window, self._state(), self._rules, self.running))

    def _return(self, surplus: tuple[str, ...]) -> None:
        for job_id in surplus:
            if job_id in self._surplus:
                self._window.give_back(job_id, NOT_NEEDED)
        self._surplus = frozenset(surplus) - self._surplus

    async def _next_batch(self, tasks: asyncio.TaskGroup) -> None:
        """Choose a batch, wait until its jobs are claimed, and hand it to the engine."""
        chosen_at = time.monotonic()
        window = self._candidates()
        decision = choose(window, self._state(), self._rules)
        if not decision.run:
            await self._hand_on(decision.give_back)
            return
        run = self._within_grace(window, decision.run)
        alone = next(one.solo for one in window if one.job_id == run[0])
        self._wants_quiet = alone and bool(self._started or self._finishing)
        if self._wants_quiet:
            return
        load_estimate, estimate = self._start(window, run)
        batch = Batch([self._window.stop_of(job_id) for job_id in run], alone)
        self._assembling = batch
        for job_id, seat in zip(run, batch.seats, strict=True):
            self._window.call(job_id, seat)
        self._return(decision.give_back)
        await batch.assembled.wait()
        self._assembling = None
        self._tempo.prepared(time.monotonic() - chosen_at)
        self._changes.notify()
        if batch.is_wanted and not self._left.is_set():
            one = Started(batch, self._calls(batch), window, run, load_estimate, estimate)
            self._started.append(one)
            made = self._place.engine.submit(one.calls.make)
            tasks.create_task(self._follow(one, made), name="batch")

    async def _hand_on(self, job_ids: tuple[str, ...]) -> None:
        """Give jobs to workers that may have their model, if the count of messages is fresh."""
        if self._backlog.is_due:
            await self._backlog.look(len(self._window) + self.running)
            return  # and choose again
        self._lately.hand_on(job_ids)
        self._rests_until = time.monotonic() + self._rules.hop_seconds
        for job_id in job_ids:
            self._window.give_back(job_id, HANDED_ON)

    def _start(self, window: tuple[Candidate, ...], run: tuple[str, ...]) -> tuple[float, float]:
        """Note what is about to run; return the seconds that loading and running should take."""
        batch = [one for one in window if one.job_id in run]
        rest = [one for one in window if one.job_id not in run]
        loaded = self._place.engine.loaded
        self._lately.start(batch)
        self._place.engine.evict_first(evict_order(loaded, rest, self._lately.models))
        load_seconds = 0.0 if batch[0].model in loaded else batch[0].load_seconds
        return load_seconds, sum(one.gpu_seconds for one in batch)

    def _calls(self, batch: Batch) -> Calls:
        place = self._place
        return Calls(
            batch, place.engine, self._limits, place.metrics, place.pool.name, self._changes.notify
        )

    async def _follow(self, one: Started, made: asyncio.Future[None]) -> None:
        """Stay with a batch until all of its messages are settled."""
        abandoned = asyncio.ensure_future(self._abandoned(one.batch))
        await asyncio.wait({made, abandoned}, return_when=asyncio.FIRST_COMPLETED)
        abandoned.cancel()
        if not made.done():  # a load cannot be interrupted: it goes on behind
            return
        self._started.remove(one)
        self._finishing += 1
        if self._place.engine.lost is not None:
            self.lost.set()
            self.leave()
        self._changes.notify()
        made.result()
        self._tempo.ran(one.estimate_seconds, one.calls.run_seconds)
        self._note_overtaken(one)
        await one.batch.over.wait()
        self._finishing -= 1
        self._changes.notify()

    async def _abandoned(self, batch: Batch) -> None:
        """Wait until the worker leaves and none of the batch's jobs is left."""
        await self._left.wait()
        await batch.over.wait()

    def _candidates(self) -> tuple[Candidate, ...]:
        """What the scheduler is told; the batches that still run are counted as estimated."""
        expected = [one.expected_waits() for one in self._started]
        told = []
        for held in self._window.line:
            job_id = held.message.job_id
            waits = sum(waits.get(job_id, 0.0) for waits in expected)
            told.append(held.candidate(self._load_seconds(held.message.model), waits))
        return tuple(told)

    def _load_seconds(self, model: str) -> float:
        try:
            return self._place.catalog.model(model).load_seconds
        except UnknownModel:
            return 0.0  # its job will fail of that, without a load

    def _state(self) -> WorkerState:
        place = self._place
        return WorkerState(
            now=place.clock.now().timestamp(),
            loaded=place.engine.loaded,
            capacity=place.pool.concurrency,
            max_pictures=lambda key: self._limits.limit(size_of(key)),  # type: ignore[arg-type]
            active=self._backlog.active,
            replicas=place.pool.replicas.max,
            line_empty=self._backlog.line_empty,
            served=self._lately.tenants,
            passed=self._lately.passed if self._hands_on else None,
        )

    def _within_grace(self, window: tuple[Candidate, ...], run: tuple[str, ...]) -> tuple[str, ...]:
        """As many of ``run`` as take no longer than the pool's longest job may.

        The grace period of a drain covers that one: a batch that took longer would be thrown away.
        """
        seconds = {one.job_id: one.gpu_seconds for one in window}
        left = self._place.pool.max_gpu_seconds - seconds[run[0]]
        fit = [run[0]]
        for job_id in run[1:]:
            left -= seconds[job_id]
            if left < 0:
                break
            fit.append(job_id)
        return tuple(fit)

    def _note_overtaken(self, one: Started) -> None:
        """Tell the jobs that still wait how long they waited for younger ones."""
        calls = one.calls
        waits = overtaken(one.window, one.run, calls.load_seconds, calls.run_seconds)
        for held in self._window.line:
            held.overtaken_seconds += waits.get(held.message.job_id, 0.0)
