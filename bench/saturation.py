"""How much of the time the device works while jobs wait, and what the platform costs it.

    python -m bench.saturation [--jobs 12] [--rounds 5] [--batch 1] [--catalog FILE]

The same backlog of jobs of about a second (on one slow core) is done three ways in turns, in one
process: by the worker on SQLite and files; by a bare loop that only calls the pipeline, on the
batches that the worker made; and by a naive loop that leases, generates, encodes, uploads and
settles in sequence, one job at a time. Medians over the rounds. Prints a table and, as its last
line, one JSON object.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path

import torch

from bench.workbench import Rounds, Workbench, ratio
from darkroom.catalog import load_catalog
from darkroom.log import configure
from darkroom.settings import DEFAULT_CATALOG
from worker.settings import restrain_libraries


async def measure(bench: Workbench, jobs: int, rounds: int, batch: int) -> Rounds:
    """Do the jobs in each way, ``rounds`` times, in turns."""
    await bench.warm()
    taken: Rounds = {"platform": [], "bare": [], "naive": []}
    for number in range(rounds):
        if number % 2:
            taken["naive"].append(await bench.naive(jobs))
        done, batches = await bench.platform(jobs, batch)
        taken["platform"].append(done)
        taken["bare"].append(bench.bare(batches))
        if not number % 2:
            taken["naive"].append(await bench.naive(jobs))
    return taken


def summary(taken: Rounds, jobs: int) -> dict[str, float]:
    """Shares of wall time inside calls, jobs a second, and ratios within each round.

    Throughput is per second of wall time, and beside it per second of processor time: on a machine
    that is shared the first says more of the neighbours than of the platform.
    """

    def share(name: str) -> float:
        return statistics.median(one.in_calls / one.seconds for one in taken[name])

    return {
        "platform_share_in_calls": share("platform"),
        "naive_share_in_calls": share("naive"),
        "platform_to_bare_throughput": ratio(taken, "platform", "bare"),
        "naive_to_bare_throughput": ratio(taken, "naive", "bare"),
        "platform_to_bare_per_cpu_second": ratio(taken, "platform", "bare", "cpu"),
        "naive_to_bare_per_cpu_second": ratio(taken, "naive", "bare", "cpu"),
        **{
            f"{name}_jobs_per_second": jobs / statistics.median(one.seconds for one in rounds)
            for name, rounds in taken.items()
        },
        "platform_pictures_per_call": jobs / len(taken["platform"][-1].sizes),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1, help="jobs that the worker runs at once")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--catalog", type=Path, default=DEFAULT_CATALOG)
    given = parser.parse_args()
    restrain_libraries()
    configure("error", "console", "bench")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(load_catalog(given.catalog), given.steps, given.threads, Path(folder))
        taken = asyncio.run(measure(bench, given.jobs, given.rounds, given.batch))
    result = summary(taken, given.jobs)
    print(f"{given.rounds} rounds of {given.jobs} jobs of {given.steps} steps\n")
    for name, value in result.items():
        print(f"{name:<32}{value:>9.3f}")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
