"""The window: what this worker has leased and not yet chosen to run."""

import asyncio
from typing import Any

from prometheus_client import Gauge

from darkroom.errors import Preempted
from darkroom.messages import JobMessage
from worker.batches import Seat
from worker.changes import Changes
from worker.delivery import Delivery
from worker.scheduler import Candidate
from worker.stopping import StopSignal


class Held:
    """One leased message that waits for its turn.

    ``solo``: the job is to run alone, because the worker of its last attempt did not live to say
    what came of it. (The record tells that, so it is known once a claim was tried.)
    ``overtaken_seconds``: see `worker.scheduler`.
    """

    def __init__(self, delivery: Delivery, message: JobMessage) -> None:
        self.delivery = delivery
        self.message = message
        self.solo = False
        self.overtaken_seconds = 0.0
        self.seat: Seat | None = None
        self._turn: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()

    def candidate(self, load_seconds: float, expected_seconds: float) -> Candidate:
        """Return what the scheduler is told; ``expected_seconds`` more of being overtaken."""
        message = self.message
        return Candidate(
            job_id=message.job_id,
            tenant=message.tenant,
            model=message.model,
            key=message.batch_key,
            pictures=message.num_images,
            gpu_seconds=message.gpu_seconds,
            load_seconds=load_seconds,
            admitted_at=message.created_at.timestamp(),
            deadline_at=None if message.deadline_at is None else message.deadline_at.timestamp(),
            solo=self.solo,
            overtaken_seconds=self.overtaken_seconds + expected_seconds,
        )

    def call(self, seat: Seat) -> None:
        """It is the job's turn."""
        self.seat = seat
        self._turn.set_result(seat)

    def give_back(self, reason: Preempted) -> None:
        """It will not be, here."""
        self._turn.set_exception(reason)

    def wait_again(self) -> None:
        """Wait for another turn, alone."""
        self.solo = True
        self._turn = asyncio.get_running_loop().create_future()

    async def turn(self) -> Seat:
        """Wait for the job's turn. Raises why there will be none: given back, or told to stop."""
        stopping = asyncio.ensure_future(self.delivery.stop.wait())
        try:
            either: set[asyncio.Future[Any]] = {self._turn, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._turn.done():
                return self._turn.result()
            self._turn.cancel()
            raise stopping.result()
        finally:
            stopping.cancel()


class Window:
    """The line of the held, and the ids of all jobs that are in this worker's hands."""

    def __init__(self, changes: Changes, size: Gauge) -> None:
        self._changes = changes
        self._size = size
        self._line: dict[str, Held] = {}
        self._in_hands: set[str] = set()

    def __len__(self) -> int:
        return len(self._line)

    @property
    def has_none_in_hands(self) -> bool:
        """Whether this worker has no job in its hands, waiting or running."""
        return not self._in_hands

    @property
    def line(self) -> list[Held]:
        """The held, in the order in which they were leased."""
        return list(self._line.values())

    def take(self, held: Held) -> bool:
        """Put a message in the line; False for one whose job is in this worker's hands already."""
        job_id = held.message.job_id
        if job_id in self._in_hands:
            return False
        self._in_hands.add(job_id)
        self.wait_in_line(held)
        return True

    def wait_in_line(self, held: Held) -> None:
        """Put a message in the line that is in this worker's hands."""
        self._line[held.message.job_id] = held
        self._changed()

    def leave_line(self, held: Held) -> None:
        """Take it out: its turn has come, or it goes back."""
        if self._line.pop(held.message.job_id, None) is not None:
            self._changed()

    def let_go(self, held: Held) -> None:
        """Nothing more is done for its job: another copy of its message may be taken."""
        self._in_hands.discard(held.message.job_id)

    def stop_of(self, job_id: str) -> StopSignal:
        """Return by what a job that waits is told to stop."""
        return self._line[job_id].delivery.stop

    def call(self, job_id: str, seat: Seat) -> None:
        """Tell a job that its turn has come."""
        held = self._line[job_id]
        self.leave_line(held)
        held.call(seat)

    def give_back(self, job_id: str, reason: Preempted) -> None:
        """Give a message back to its queue."""
        held = self._line[job_id]
        self.leave_line(held)
        held.give_back(reason)

    def _changed(self) -> None:
        self._size.set(len(self._line))
        self._changes.notify()
