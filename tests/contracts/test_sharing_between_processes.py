"""The embedded adapters promise that several processes share one machine's files, and that what a
call returned from survives kill -9."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from darkroom.catalog import Catalog
from darkroom.errors import QueueUnavailable
from darkroom.queues.sqlite import SCHEMA, SqliteJobQueue
from darkroom.settings import DarkroomSettings
from darkroom.sqlite import Database
from darkroom.wiring import Backends, open_backends
from tests.samples import PNG, make_job, make_message

PROGRAM = "tests.contracts.neighbour"


def open_here(folder: Path) -> Backends:
    settings = DarkroomSettings(
        queue_url=f"sqlite:///{folder}/data.db",
        jobstore_url=f"sqlite:///{folder}/data.db",
        imagestore_url=f"file:///{folder}/images",
    )
    model = {
        "name": "demo",
        "source": "demo",
        "revision": "1",
        "seconds_per_megapixel_step": 0.1,
        "licence": "MIT",
    }
    pool = {"name": "short", "models": ["demo"], "max_gpu_seconds": 100}
    catalog = Catalog.model_validate({"default_model": "demo", "models": [model], "pools": [pool]})
    return open_backends(settings, catalog)


async def neighbour(folder: Path, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", PROGRAM, str(folder), *arguments, stdout=PIPE
    )


async def lines(process: Process) -> list[str]:
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return out.decode().split()


async def test_two_processes_never_hold_one_message(tmp_path: Path) -> None:
    backends = open_here(tmp_path)
    messages = [make_message() for _ in range(500)]
    await asyncio.gather(*(backends.queues["short"].send(message) for message in messages))
    processes = [await neighbour(tmp_path, "consume") for _ in range(2)]
    first, second = await asyncio.gather(*(lines(process) for process in processes))
    assert not set(first) & set(second)
    assert sorted(first + second) == sorted(message.message_id for message in messages)
    await backends.close()


async def test_two_processes_that_count_lose_no_count(tmp_path: Path) -> None:
    backends = open_here(tmp_path)
    job = (await backends.jobs.create(make_job())).job
    processes = [await neighbour(tmp_path, "count", job.id, "100") for _ in range(2)]
    await asyncio.gather(*(lines(process) for process in processes))
    assert (await backends.jobs.get(job.id)).attempts == 200
    await backends.close()


async def test_what_send_returned_from_survives_a_kill(tmp_path: Path) -> None:
    process = await neighbour(tmp_path, "produce")
    assert process.stdout is not None
    told = [(await asyncio.wait_for(process.stdout.readline(), 60)).decode() for _ in range(200)]
    process.kill()
    rest = (await process.stdout.read()).decode().split("\n")[:-1]  # the last may be half told
    await process.wait()
    queue = SqliteJobQueue(
        Database(tmp_path / "data.db", SCHEMA, QueueUnavailable),
        "short",
        lease_seconds=30,
        max_delivery_count=3,
    )
    held = {lease.message_id for lease in await queue.lease(1_000_000, 0)}
    assert {line.strip() for line in told + rest} <= held
    await queue.close()


async def test_a_process_killed_while_it_writes_pictures_leaves_whole_ones(
    tmp_path: Path,
) -> None:
    process = await neighbour(tmp_path, "draw", "local-job")
    assert process.stdout is not None
    backends = open_here(tmp_path)
    await asyncio.wait_for(process.stdout.readline(), 60)
    fills: set[int] = set()
    async with asyncio.timeout(60):
        while len(fills) < 10:  # the picture changed ten times while it was read
            png = await backends.images.get("local-job", "0.png")
            assert png == PNG + png[-1:] * 300_000
            fills.add(png[-1])
    process.kill()
    await process.wait()
    png = await backends.images.get("local-job", "0.png")
    assert png == PNG + png[-1:] * 300_000
    await backends.images.put("local-job", "0.png", PNG, attempt=1_000_000)
    await backends.close()
