"""What batches give: pictures a second at batch 8, through the platform and by the bare pipeline.

    python -m bench.batching [--batch 8] [--batches 3] [--rounds 4] [--catalog FILE]

In turns, in one process: the worker on a backlog of single-picture jobs that agree, eight at once;
the bare pipeline on the very batches that it made; and the bare pipeline one picture at a time,
which is what a worker without batching could do at best. Medians over the rounds. Prints a table
and, as its last line, one JSON object.
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


async def measure(bench: Workbench, batch: int, batches: int, rounds: int) -> Rounds:
    """Make ``batches`` times ``batch`` pictures each way, ``rounds`` times, in turns."""
    await bench.warm()
    jobs = batch * batches
    taken: Rounds = {"platform": [], "bare": [], "single": []}
    for _ in range(rounds):
        done, made = await bench.platform(jobs, batch)
        taken["platform"].append(done)
        taken["bare"].append(bench.bare(made))
        taken["single"].append(bench.bare([[seed] for seed in range(jobs)]))
    return taken


def summary(taken: Rounds, jobs: int) -> dict[str, float]:
    """Pictures a second, and ratios within each round."""
    return {
        "platform_to_bare_throughput": ratio(taken, "platform", "bare"),
        "platform_to_bare_per_cpu_second": ratio(taken, "platform", "bare", "cpu"),
        "batch_speed_up": ratio(taken, "bare", "single"),
        "batch_speed_up_per_cpu_second": ratio(taken, "bare", "single", "cpu"),
        **{
            f"{name}_pictures_per_second": jobs / statistics.median(one.seconds for one in rounds)
            for name, rounds in taken.items()
        },
        "platform_pictures_per_call": jobs / len(taken["platform"][-1].sizes),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--catalog", type=Path, default=DEFAULT_CATALOG)
    given = parser.parse_args()
    restrain_libraries()
    configure("error", "console", "bench")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(load_catalog(given.catalog), given.steps, given.threads, Path(folder))
        taken = asyncio.run(measure(bench, given.batch, given.batches, given.rounds))
    jobs = given.batch * given.batches
    result = summary(taken, jobs)
    print(f"{given.rounds} rounds of {jobs} pictures of {given.steps} steps\n")
    for name, value in result.items():
        print(f"{name:<34}{value:>9.3f}")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
