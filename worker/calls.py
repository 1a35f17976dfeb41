"""The pipeline calls of one batch, on the engine's thread: as few as fit.

What happens to one job is told to its seat alone:

- A lack of memory first puts away models that the batch does not need, then halves the call; a job
  fails for it only when a single picture does not fit.
- Any other error of a call with several jobs runs each of them again alone, so that it fails only
  the job at fault.
- A job that is told to stop leaves at once and its pictures are dropped; the call ends early only
  when all of its jobs have stopped.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from darkroom.errors import DeviceLost, OutOfMemory, Preempted
from darkroom.log import get_logger
from darkroom.metrics import WorkerMetrics
from worker.batch_limits import BatchLimits, size_of
from worker.batches import Batch, Seat, Work
from worker.claims import Spent
from worker.engine_thread import EngineThread
from worker.engines.base import GenerationStopped, OnStep, Preview
from worker.metering import Doing
from worker.tempo import Progress

log = get_logger()

Part = tuple[Seat, Work, int]
"""One picture that is to be made: whose, and its index."""


class Calls:
    """Makes a batch's pictures. ``on_news`` is called on the event loop when a call begins, and
    when its first step tells how fast it is.
    """

    def __init__(
        self,
        batch: Batch,
        engine: EngineThread,
        limits: BatchLimits,
        metrics: WorkerMetrics,
        pool: str,
        on_news: Callable[[], None],
    ) -> None:
        self.batch = batch
        self.progress = Progress()
        self.load_seconds = 0.0
        self.run_seconds = 0.0
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._pool = pool
        self._on_news = on_news
        self._apart: set[Seat] = set()

    def make(self) -> None:
        """Make the pictures and tell each seat. On the engine's thread."""
        todo = [
            (seat, seat.work, index)
            for seat in self.batch.seats
            if seat.work is not None
            for index in range(seat.work.pictures)
        ]
        self.progress.total = len(todo)
        if self._engine.lost is not None:
            self._fail(todo, Preempted("the device failed before the job could run"))
            return
        try:
            while todo := self._still_wanted(todo):
                todo = self._call(todo)
        except DeviceLost as error:
            self._fail(todo, error)

    def _call(self, todo: list[Part]) -> list[Part]:
        """Try one call; return what is left to do. Raises `DeviceLost`."""
        call = self._next(todo)
        try:
            self._load(call)
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 -- a loader raises anything; the jobs end by it
            return self._fail(todo, error, {seat for seat, _, _ in call})
        if any(seat.stop.reason is not None for seat, _, _ in call):
            return todo  # a load takes long: who has left meanwhile is not generated or charged
        try:
            self._generate(call)
        except DeviceLost:
            raise
        except GenerationStopped:
            return todo
        except OutOfMemory as error:
            return self._smaller(todo, call, error)
        except Exception as error:  # noqa: BLE001 -- a pipeline raises anything; the job ends by it
            return self._one_by_one(todo, call, error)
        self.progress.made(len(call))
        return [part for part in todo if part not in call]

    def _next(self, todo: list[Part]) -> list[Part]:
        """The parts of the next call: of one key, as many as fit, a job apart by itself."""
        first, work, _ = todo[0]
        limit = self._limits.limit(size_of(work.key))
        alike = [
            part
            for part in todo
            if part[1].key == work.key
            and (part[0] is first or not (first in self._apart or part[0] in self._apart))
        ]
        return alike[:limit]

    def _load(self, call: list[Part]) -> None:
        _, work, _ = call[0]
        with self._charged("load", call):
            seconds = self._engine.ready(work.model, work.folder)
        self.load_seconds += seconds
        if seconds:
            self._metrics.load_seconds.labels(work.model.name).observe(seconds)

    def _generate(self, call: list[Part]) -> None:
        indices: dict[Seat, list[int]] = {}
        for seat, _, index in call:
            indices.setdefault(seat, []).append(index)
        works = {seat: work for seat, work, _ in call}
        tasks = [
            replace(work.task, pictures=tuple(indices[seat]))
            if len(indices[seat]) < work.pictures
            else work.task
            for seat, work in works.items()
        ]
        self.progress.begin()
        self._tell(self._on_news)
        self.batch.in_call = tuple(works)
        try:
            with self._charged("generate", call):
                answers = self._engine.generate(tasks, self._on_step(works, indices))
        finally:
            self.batch.in_call = ()
        self._metrics.batch_pictures.labels(self._pool).observe(len(call))
        self._limits.passed(size_of(call[0][1].key), len(call))
        for (seat, work), pictures in zip(works.items(), answers, strict=True):
            seat.done.update(zip(indices[seat], pictures, strict=True))
            if len(seat.done) == work.pictures:
                self._tell(seat.resolve, [seat.done[index] for index in range(work.pictures)])

    def _on_step(self, works: dict[Seat, Work], indices: dict[Seat, list[int]]) -> OnStep:
        pictures = sum(len(some) for some in indices.values())

        def on_step(step: int, total: int, preview: Preview) -> None:
            share = step / max(1, total)
            self.progress.note(pictures * share)
            if step == 1:
                self._tell(self._on_news)
            done = {seat: len(seat.done) + len(some) * share for seat, some in indices.items()}
            self._tell(_note, {seat: done[seat] / work.pictures for seat, work in works.items()})
            shown = [(work, 0 in indices[seat]) for seat, work in works.items()]
            self._preview(shown, share, preview)
            if all(seat.stop.reason is not None for seat in works):
                raise GenerationStopped

        return on_step

    @contextmanager
    def _charged(self, doing: Doing, call: list[Part]) -> Iterator[None]:
        bills: dict[Hashable, tuple[Spent, int]] = {}
        for seat, work, _ in call:
            bills[seat] = (work.spent, bills[seat][1] + 1 if seat in bills else 1)
        started = time.perf_counter()
        try:
            with self.batch.meter.running(doing, bills):
                yield
        finally:
            seconds = time.perf_counter() - started
            self._metrics.device_seconds.labels(self._pool, doing).inc(seconds)
            if doing == "generate":
                self.run_seconds += seconds

    def _smaller(self, todo: list[Part], call: list[Part], error: OutOfMemory) -> list[Part]:
        """Make room, or make the next calls smaller; fail a job whose one picture does not fit."""
        first, work, _ = call[0]
        if self._engine.shed(work.model.name):
            return todo
        if len(call) == 1:
            return self._fail(todo, error, {first})
        self._limits.failed(size_of(work.key), len(call))
        return todo

    def _one_by_one(self, todo: list[Part], call: list[Part], error: Exception) -> list[Part]:
        """Run each job of a call that failed again alone; fail the job of one that was alone."""
        seats = {seat for seat, _, _ in call}
        if len(seats) == 1:
            return self._fail(todo, error, seats)
        self._apart |= seats
        return todo

    def _still_wanted(self, todo: list[Part]) -> list[Part]:
        stopped = {seat for seat, _, _ in todo if seat.stop.reason is not None}
        return self._fail(todo, GenerationStopped(), stopped) if stopped else todo

    def _fail(
        self, todo: list[Part], error: Exception, seats: set[Seat] | None = None
    ) -> list[Part]:
        """Tell ``seats`` (all, if none are given) of ``error``; return what the others wait for."""
        failed = {seat for seat, _, _ in todo} if seats is None else seats
        for seat in failed:
            self._tell(seat.fail, error)
        return [part for part in todo if part[0] not in failed]

    def _preview(self, works: Sequence[tuple[Work, bool]], share: float, preview: Preview) -> None:
        """Show what forms to whoever wants to see it; one decoding serves all of the call.

        ``works`` are in the call's order, each with whether its first picture is in this call.
        """
        wanting = [
            (place, work.previews)
            for place, (work, is_first) in enumerate(works)
            if is_first and work.previews is not None and work.previews.due(share)
        ]
        if not wanting:
            return
        try:
            pictures = preview()
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 -- a decoder raises anything; the jobs go on
            log.warning("preview_failed", error=type(error).__name__)
            return
        for place, previews in wanting:
            if place < len(pictures):
                self._tell(previews.show, pictures[place], share)

    def _tell(self, call: Callable[..., None], *values: Any) -> None:
        self._loop.call_soon_threadsafe(call, *values)


def _note(shares: dict[Seat, float]) -> None:
    for seat, share in shares.items():
        if seat.work is not None:
            seat.work.noted(share)
