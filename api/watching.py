"""Waiting for a job to change: all who wait for one job share one read per period."""

import asyncio
from collections.abc import Callable

from darkroom.errors import DarkroomError
from darkroom.jobs import Job
from darkroom.jobstores.base import JobStore


class _Watch:
    """One watched job: how many wait, the newest record read for them, and what wakes them."""

    def __init__(self) -> None:
        self.waiters = 0
        self.latest: Job | None = None
        self.known_version = ""
        self.changed = asyncio.Event()
        self.reader: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Wake everybody who waits at this moment."""
        woken, self.changed = self.changed, asyncio.Event()
        woken.set()

    def publish(self, job: Job) -> None:
        """Wake everybody with a record that is news."""
        self.latest = job
        self.known_version = job.version
        self.wake()


class Watcher:
    """Reads each waited-for record every ``watch_seconds``, whatever the number of waiters."""

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
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        try:
            while not (until(job) or self._closing):
                try:
                    async with asyncio.timeout_at(ends):
                        await watch.changed.wait()
                except TimeoutError:
                    break
                job = watch.latest or job
        finally:
            self._leave(job.id, watch)
        return job

    def changed(self, job: Job) -> None:
        """Tell those who wait in this process about a record that it has just written."""
        if watch := self._watches.get(job.id):
            watch.publish(job)

    def close(self) -> None:
        """Let everybody who waits answer with what is known, so that the server can stop."""
        self._closing = True
        for watch in self._watches.values():
            watch.wake()

    def _join(self, job: Job) -> _Watch:
        watch = self._watches.setdefault(job.id, _Watch())
        watch.waiters += 1
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
            await asyncio.sleep(self._watch_seconds)
            try:
                job = await self._jobs.get(job_id)
            except DarkroomError:  # the store may be back at the next read
                continue
            if job.version != watch.known_version:
                watch.publish(job)
