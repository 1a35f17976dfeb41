"""What 1,000 long-polls and 200 event streams on one API process cost: memory, and others' time."""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import api_servers
from bench.api_client import submits
from bench.api_servers import ROOT, Server

SHARED_JOBS = 10
WARM_UP = 50
OPEN_SECONDS = 300
SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Crowd:
    """How many wait: long-polls, and streams; on jobs of their own or on a few that they share."""

    name: str
    polls: int
    streams: int
    jobs: int


@dataclass(frozen=True)
class Cost:
    """What a crowd cost. Latencies in milliseconds: p50 and p95 without and with it."""

    crowd: Crowd
    idle_bytes: int
    bytes_each: float
    idle: tuple[float, float]
    crowded: tuple[float, float]
    idle_share: float
    """Of a processor, that the crowd alone takes: nobody submits, nothing happens."""


def crowds(polls: int, streams: int) -> list[Crowd]:
    """Return the two crowds that are measured."""
    return [
        Crowd("distinct", polls, streams, polls),
        Crowd("shared", polls, streams, min(SHARED_JOBS, polls)),
    ]


async def measure(folder: Path, crowd: Crowd, count: int) -> Cost:
    """Submit ``count`` jobs before, beside and after ``crowd``, on a server of its own.

    The idle figure is of the submits before and after, so that what else the machine does falls on
    both alike. Memory is read before the submits that are timed.
    """
    with api_servers.ours(folder) as server:
        made = (await submits(server.port, max(WARM_UP, crowd.jobs), 4)).job_ids[: crowd.jobs]
        idle = (await submits(server.port, count, 1)).latencies
        before = server.resident_bytes
        waited_for = [made[number % len(made)] for number in range(crowd.polls)]
        with _waiting(server, waited_for, crowd.streams):
            idle_share = await _share(server)
            each = (server.resident_bytes - before) / (crowd.polls + crowd.streams)
            crowded = (await submits(server.port, 2 * count, 1)).latencies
        idle += (await submits(server.port, count, 1)).latencies
    return Cost(crowd, before, each, percentiles(idle), percentiles(crowded), idle_share)


def percentiles(latencies: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p95 in milliseconds of at least two latencies in seconds."""
    cuts = statistics.quantiles(latencies, n=20, method="inclusive")
    return cuts[9] * 1000, cuts[18] * 1000


def summary(costs: Sequence[Cost]) -> dict[str, float]:
    """Every figure by name: ratios are of the crowded server to the idle one."""
    told: dict[str, float] = {}
    for cost in costs:
        name = cost.crowd.name
        told |= {
            f"{name}_waiters": cost.crowd.polls + cost.crowd.streams,
            f"{name}_idle_mib": cost.idle_bytes / 2**20,
            f"{name}_kib_per_waiter": cost.bytes_each / 2**10,
            f"{name}_waiting_processor_share": cost.idle_share,
            f"{name}_idle_submit_p50_ms": cost.idle[0],
            f"{name}_idle_submit_p95_ms": cost.idle[1],
            f"{name}_submit_p50_ratio": cost.crowded[0] / cost.idle[0],
            f"{name}_submit_p95_ratio": cost.crowded[1] / cost.idle[1],
        }
    return told


async def _share(server: Server) -> float:
    began, worked = time.perf_counter(), server.processor_seconds
    await asyncio.sleep(SETTLE_SECONDS)
    return (server.processor_seconds - worked) / (time.perf_counter() - began)


@contextlib.contextmanager
def _waiting(server: Server, job_ids: Sequence[str], streams: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.api_crowd", str(server.port), str(streams)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("\n".join(job_ids))
        process.stdin.close()
        if process.stdout.readline() != "open\n":
            raise RuntimeError("the callers who wait ended; see above")
        ends = time.monotonic() + OPEN_SECONDS
        while server.process.num_fds() < len(job_ids) + streams:
            if time.monotonic() > ends:
                raise TimeoutError("the server does not hold every connection")
            time.sleep(0.05)
        yield
        if process.poll() is not None:
            raise RuntimeError("the callers who wait did not wait to the end; see above")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
