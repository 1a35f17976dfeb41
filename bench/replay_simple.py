"""The policies that ours is measured against: first in, first out, and a queue per model."""

from collections import deque
from collections.abc import Callable, Sequence

from bench.replay_pool import Device, Outcome, Pool, Setting
from bench.replay_trace import TraceJob


class _InOrder:
    """One queue; whichever worker is free takes its oldest, the longest idle one first."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._queue: deque[TraceJob] = deque()
        self._idle = deque(pool.devices)

    def arrive(self, job: TraceJob) -> None:
        self._queue.append(job)
        self._start()

    def _start(self) -> None:
        while self._idle and self._queue:
            device, job = self._idle.popleft(), self._queue.popleft()
            end = self._pool.run([job], self._load(device, job), job.seconds)
            self._pool.at(end, self._end_of(device))

    def _load(self, device: Device, job: TraceJob) -> float:
        return self._pool.load(device, job.model)

    def _end_of(self, device: Device) -> Callable[[], None]:
        def end() -> None:
            self._idle.append(device)
            self._start()

        return end


class _LoadedOnce(_InOrder):
    """A load is paid once by the whole pool, and never again anywhere."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._everywhere = Device(0, fits=len(pool.jobs) + 1)

    def _load(self, device: Device, job: TraceJob) -> float:
        return self._pool.load(self._everywhere, job.model)


class _QueuePerModel:
    """A free worker serves the queues of the models it has loaded, the last used first.

    Once these are empty it takes that of the oldest job. A job that finds workers free goes to one
    that has its model, if there is one: every worker sees all queues, as none of ours does.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._queues: dict[str, deque[TraceJob]] = {}
        self._idle = deque(pool.devices)

    def arrive(self, job: TraceJob) -> None:
        self._queues.setdefault(job.model, deque()).append(job)
        if self._idle:
            having = [device for device in self._idle if job.model in device.loaded]
            device = having[0] if having else self._idle[0]
            self._idle.remove(device)
            self._start(device)

    def _start(self, device: Device) -> None:
        queues = {model: queue for model, queue in self._queues.items() if queue}
        if not queues:
            self._idle.append(device)
            return
        own = [model for model in reversed(device.loaded) if model in queues]
        model = own[0] if own else min(queues, key=lambda model: queues[model][0].number)
        job = queues[model].popleft()
        end = self._pool.run([job], self._pool.load(device, model), job.seconds)
        self._pool.at(end, lambda: self._start(device))


def in_order(jobs: Sequence[TraceJob], setting: Setting) -> Outcome:
    """First in, first out; each worker evicts its least recently used pipeline."""
    pool = Pool(jobs, setting)
    return pool.play(_InOrder(pool).arrive)


def per_model(jobs: Sequence[TraceJob], setting: Setting) -> Outcome:
    """A queue per model, served until it is empty."""
    pool = Pool(jobs, setting)
    return pool.play(_QueuePerModel(pool).arrive)


def loaded_once(jobs: Sequence[TraceJob], setting: Setting) -> Outcome:
    """First in, first out, where each model is loaded once in the whole run."""
    pool = Pool(jobs, setting)
    return pool.play(_LoadedOnce(pool).arrive)
