"""Another process on the same files: ``python -m tests.contracts.neighbour FOLDER ROLE ...``."""

import asyncio
import sys
from itertools import count
from pathlib import Path

from darkroom.errors import VersionConflict
from darkroom.wiring import Backends
from tests.contracts.test_sharing_between_processes import open_here
from tests.samples import PNG, make_message


async def consume(backends: Backends) -> None:
    while leases := await backends.queues["short"].lease(4, 0.2):
        for lease in leases:
            await lease.complete()
            print(lease.message_id, flush=True)


async def produce(backends: Backends) -> None:
    while True:
        message = make_message()
        await backends.queues["short"].send(message)
        print(message.message_id, flush=True)


async def count_up(backends: Backends, job_id: str, times: str) -> None:
    left = int(times)
    while left:
        job = await backends.jobs.get(job_id)
        more = job.model_copy(update={"attempts": job.attempts + 1})
        try:
            await backends.jobs.compare_and_set(more, job.version)
            left -= 1
        except VersionConflict:
            continue


async def draw(backends: Backends, job_id: str) -> None:
    for attempt in count():
        png = PNG + bytes([attempt % 251]) * 300_000
        await backends.images.put(job_id, "0.png", png, attempt=attempt)
        print(attempt, flush=True)


ROLES = {"consume": consume, "produce": produce, "count": count_up, "draw": draw}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[2]](open_here(Path(sys.argv[1])), *sys.argv[3:]))  # type: ignore[operator]
