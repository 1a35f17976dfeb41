"""``python -m bench.api_crowd PORT STREAMS < JOB_IDS``: callers who wait, in their own process.

Standard input has one job id a line: each gets a caller who polls with ``wait``, again and again;
the first STREAMS of them are followed as Server-Sent Events too. Says ``open`` once every stream
has had its first event and every poll was sent. Runs until SIGTERM.
"""

import asyncio
import sys

from bench.api_client import Connection, get
from bench.api_servers import raise_file_limit

WAIT_SECONDS = 60
OPENING = 32
"""How many connections are opened at once: more would fill the server's backlog."""


class Opened:
    """Counts down to the last caller."""

    def __init__(self, callers: int) -> None:
        self._missing = callers
        self.all = asyncio.Event()

    def one(self) -> None:
        """Note that one more waits."""
        self._missing -= 1
        if self._missing == 0:
            self.all.set()


async def poll(port: int, job_id: str, turn: asyncio.Semaphore, opened: Opened) -> None:
    """Poll one job for ever."""
    async with turn:
        connection = await Connection.open(port)
    opened.one()
    while True:
        await connection.ask(get(f"/v1/jobs/{job_id}?wait={WAIT_SECONDS}"), 200)


async def follow(port: int, job_id: str, turn: asyncio.Semaphore, opened: Opened) -> None:
    """Follow one job for ever."""
    async with turn:
        connection = await Connection.open(port)
        status, _ = await connection.head(get(f"/v1/jobs/{job_id}/events"))
        if status != 200:
            raise ValueError(f"a stream was answered with {status}")
        await connection.reader.readuntil(b"data: ")
    opened.one()
    while await connection.reader.read(65_536):
        pass
    raise ConnectionError("the server ended a stream of a waiting job")


async def wait_with_all(port: int, job_ids: list[str], streams: int) -> None:
    """Open everything, say so, and keep it open until a caller fails."""
    turn, opened = asyncio.Semaphore(OPENING), Opened(len(job_ids) + streams)
    async with asyncio.TaskGroup() as group:
        for job_id in job_ids:
            group.create_task(poll(port, job_id, turn, opened))
        for job_id in job_ids[:streams]:
            group.create_task(follow(port, job_id, turn, opened))
        await opened.all.wait()
        print("open", flush=True)


def main() -> None:
    """Wait until this process is ended."""
    job_ids = sys.stdin.read().split()
    port, streams = int(sys.argv[1]), int(sys.argv[2])
    raise_file_limit(len(job_ids) + streams + 100)
    asyncio.run(wait_with_all(port, job_ids, streams))


if __name__ == "__main__":
    main()
