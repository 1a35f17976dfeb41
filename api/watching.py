"""Waiting for a job to change: all who wait for one job share one read per period."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from darkroom.errors import DarkroomError
from darkroom.jobs import Job
from darkroom.jobstores.base import JobStore

MAX_READS_PER_SECOND = 400  # of all watched records: more would leave submits no processor


class _Watch:
    """One watched job: how many wait, the newest record read for them, and what wakes them.

    Reads are numbered in the order in which they begin. One that began before a waiter came, or
    before this process wrote the record, may be older than what the waiter has: it is no news.
    """

    def __init__(self) -> None:
        self.waiters = 0
        self.waiters_ever = 0
        self.latest: Job | None = None
        self.latest_number = 0
        self.known_version = ""
        self.reads_begun = 0
        self.changed = asyncio.Event()
        self.reader: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Wake everybody who waits at this moment."""
        woken, self.changed = self.changed, asyncio.Event()
        woken.set()

    def publish(self, job: Job, number: int) -> None:
        """Wake everybody with a record that is news, unless a newer one is known."""
        if number <= self.latest_number:
            return
        self.latest, self.latest_number = job, number
        self.known_version = job.version
        self.wake()

    def newer(self, than: int) -> Job | None:
        """Return the newest record if its read began after read ``than``."""
        return self.latest if self.latest_number > than else None


class Watcher:
    """Reads each waited-for record every ``watch_seconds``, whatever the number of waiters.

    With more records than `MAX_READS_PER_SECOND` allows for, each is read less often.
    """

    def __init__(self, jobs: JobStore, watch_seconds: float) -> None:
        self._jobs = jobs
        self._watch_seconds = watch_seconds
        self._watches: dict[str, _Watch] = {}
        self._closing = False

    async def wait(self, job: Job, until: Callable[[Job], bool], seconds: float) -> Job:
        """Return the job once ``until`` holds, or as it is after ``seconds`` at most.

        An unreachable store does not end the wait; the last known record is returned.
        """
        if until(job) or seconds <= 0 or self._closing:
            return job
        watch = self._join(job)
        joined_at = watch.reads_begun
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        try:
            while not (until(job) or self._closing):
                try:
                    async with asyncio.timeout_at(ends):
                        await watch.changed.wait()
                except TimeoutError:
                    break
                job = watch.newer(joined_at) or job
        finally:
            self._leave(job.id, watch)
        return job

    async def follow(self, job: Job, idle_seconds: float) -> AsyncGenerator[Job | None, None]:
        """Yield each newer record of ``job``, and None after every ``idle_seconds`` without one.

        Ends with a record that is terminal, or when the server stops. The caller must close it
        (``aclosing``): until then the record is read.
        """
        if job.status.is_terminal or self._closing:
            return
        watch = self._join(job)
        seen = watch.reads_begun
        try:
            while not (job.status.is_terminal or self._closing):
                try:
                    async with asyncio.timeout(idle_seconds):
                        await watch.changed.wait()
                except TimeoutError:
                    yield None
                while newer := watch.newer(seen):  # news may come while the caller is busy
                    job, seen = newer, watch.latest_number
                    yield job
        finally:
            self._leave(job.id, watch)

    def changed(self, job: Job) -> None:
        """Tell those who wait in this process about a record that it has just written."""
        if watch := self._watches.get(job.id):
            watch.reads_begun += 1  # a read under way may be older than this
            watch.publish(job, watch.reads_begun)

    def close(self) -> None:
        """Let everybody who waits answer with what is known, so that the server can stop."""
        self._closing = True
        for watch in self._watches.values():
            watch.wake()

    def _join(self, job: Job) -> _Watch:
        watch = self._watches.setdefault(job.id, _Watch())
        watch.waiters += 1
        watch.waiters_ever += 1
        watch.known_version = ""  # what was read before this caller's own read is news to nobody
        if watch.reader is None:
            watch.reader = asyncio.create_task(self._read(job.id, watch))
        return watch

    def _leave(self, job_id: str, watch: _Watch) -> None:
        watch.waiters -= 1
        if watch.waiters == 0:
            del self._watches[job_id]
            if watch.reader is not None:
                watch.reader.cancel()

    async def _read(self, job_id: str, watch: _Watch) -> None:
        while True:
            least_seconds = len(self._watches) / MAX_READS_PER_SECOND
            await asyncio.sleep(max(self._watch_seconds, least_seconds))
            watch.reads_begun += 1
            number, joined = watch.reads_begun, watch.waiters_ever
            try:
                job = await self._jobs.get(job_id)
            except DarkroomError:  # the store may be back at the next read
                continue
            if job.version != watch.known_version:
                watch.publish(job, number)
                if watch.waiters_ever != joined:
                    watch.known_version = ""  # whoever came meanwhile waits for the next read
