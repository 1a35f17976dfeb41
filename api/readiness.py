"""Whether what the API depends on answers: one cheap read on each."""

import asyncio
from collections.abc import Awaitable

from api.state import ApiState
from darkroom.errors import DarkroomError, JobNotFound

CHECK_SECONDS = 2.0


async def checks_of(state: ApiState) -> dict[str, str]:
    """Return ``ok``, an error's code or ``Timeout`` for the job store and every queue."""
    names = ["jobs", *(f"queue {pool}" for pool in state.queues)]
    tries = [_read_jobs(state), *(queue.depth() for queue in state.queues.values())]
    found = await asyncio.gather(*(_check(one) for one in tries))
    return dict(zip(names, found, strict=True))


async def _read_jobs(state: ApiState) -> None:
    try:
        await state.jobs.get("probe")
    except JobNotFound:
        return


async def _check(reading: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await reading
    except DarkroomError as error:
        return error.code
    except TimeoutError:
        return "Timeout"
    return "ok"
