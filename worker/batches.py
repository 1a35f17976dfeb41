"""A batch: jobs that share pipeline calls, from the moment they are chosen until they are settled.

Each job is a coroutine of its own (`worker.runner`) that brings its `Work` to its `Seat` and waits
there for its pictures. When every seat is taken or left, the batch is made on the engine's thread
(`worker.calls`), which tells each seat what came of its job.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image

from darkroom.catalog import Model
from darkroom.messages import BatchKey
from worker.claims import Spent
from worker.engines.base import GenerationStopped, GenerationTask
from worker.metering import Meter
from worker.stopping import StopSignal


class Previews(Protocol):
    """Who wants to see a job's picture while it forms."""

    def due(self, share: float) -> bool:
        """Whether the picture is wanted, with ``share`` of its steps done. On the engine's thread.

        Asked after each step.
        """
        ...

    def show(self, picture: Image, share: float) -> None:
        """Take a small picture of the job's first picture. On the event loop."""
        ...


@dataclass(frozen=True)
class Work:
    """What a job brings to its seat. ``noted`` is told the share that is done, on the loop."""

    key: BatchKey
    model: Model
    folder: Path
    task: GenerationTask
    spent: Spent
    noted: Callable[[float], None]
    previews: Previews | None = None

    @property
    def pictures(self) -> int:
        """How many pictures the job asks for."""
        return len(self.task.generation.seeds)


class Seat:
    """One job's place in a batch. To be closed once its message is settled."""

    def __init__(self, batch: "Batch", stop: StopSignal) -> None:
        self.batch = batch
        self.stop = stop
        self.work: Work | None = None
        self.done: dict[int, Image] = {}  # by index; of the engine's thread
        self._result: asyncio.Future[list[Image]] = asyncio.get_running_loop().create_future()
        self._is_taken_or_left = False
        self._is_closed = False

    async def pictures(self, work: Work) -> list[Image]:
        """Wait for the pictures of ``work``. Raises why there are none.

        When the job is told to stop, that reason is raised at once, though the call goes on for
        others. (The last to stop waits until the call has ended: that is within a step.)
        """
        self.work = work
        self._arrive()
        stopping = asyncio.ensure_future(self.stop.wait())
        try:
            either: set[asyncio.Future[Any]] = {self._result, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._result.done() and self.batch.goes_on_without(self):
                self.batch.meter.leave(self)
                self.stop.check()
            return await self._result
        except GenerationStopped:
            self.stop.check()
            raise
        finally:
            stopping.cancel()
            self._result.add_done_callback(lambda done: done.cancelled() or done.exception())

    def leave(self) -> None:
        """Keep the batch waiting no longer; harmless for a seat that was taken."""
        self._arrive()

    def close(self) -> None:
        """Leave for good; harmless when done twice."""
        self._arrive()
        if not self._is_closed:
            self._is_closed = True
            self.batch.closed()

    def resolve(self, pictures: list[Image]) -> None:
        """Hand over the pictures. On the event loop."""
        if not self._result.done():
            self._result.set_result(pictures)

    def fail(self, error: Exception) -> None:
        """Say why there are none. On the event loop."""
        if not self._result.done():
            self._result.set_exception(error)

    def _arrive(self) -> None:
        if not self._is_taken_or_left:
            self._is_taken_or_left = True
            self.batch.arrived()


class Batch:
    """Some jobs that were chosen to run together. For the event loop, but for ``in_call``.

    ``alone``: it has one job, and this worker claims no other while that runs. ``assembled`` is set
    when every seat is taken or left, ``over`` when all are closed. ``in_call`` are the seats of the
    pipeline call that runs now; the engine's thread sets it.
    """

    def __init__(self, stops: Sequence[StopSignal], alone: bool = False) -> None:
        self.alone = alone
        self.meter = Meter()
        self.assembled = asyncio.Event()
        self.over = asyncio.Event()
        self.in_call: tuple[Seat, ...] = ()
        self.seats = [Seat(self, stop) for stop in stops]
        self._absent = len(self.seats)
        self._open = len(self.seats)

    @property
    def is_wanted(self) -> bool:
        """Whether any job of it waits for pictures."""
        return any(seat.work and seat.stop.reason is None for seat in self.seats)

    def stop(self, reason: Exception) -> None:
        """Tell every job to stop."""
        for seat in self.seats:
            seat.stop.set(reason)

    def arrived(self) -> None:
        """Note that one more seat is taken or left."""
        self._absent -= 1
        if self._absent == 0:
            self.assembled.set()

    def closed(self) -> None:
        """Note that one more seat is closed."""
        self._open -= 1
        if self._open == 0:
            self.over.set()

    def goes_on_without(self, seat: Seat) -> bool:
        """Whether a job that is told to stop need not wait for the end of a call."""
        call = self.in_call
        return seat not in call or any(other.stop.reason is None for other in call)
