"""What jobs of 200 steps cost those of 4 steps: with pools split as documented, and in one pool.

``python -m bench.replay_pools`` takes the catalog in docs/scheduling.md, routes jobs as admission
does, and plays each pool with the functions of worker/scheduler.py: once with and once without the
long jobs. A short job's delay is how much later it starts because they are there. The last line is
one JSON object.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from bench.replay_pool import Setting
from bench.replay_trace import TraceJob, numbered
from bench.replay_window import darkroom
from darkroom.catalog import Catalog, Model, Replicas
from darkroom.generation import Generation
from worker.scheduler import Rules

DOCUMENT = Path(__file__).parents[1] / "docs" / "scheduling.md"
SHORT_STEPS, LONG_STEPS = 4, 200


@dataclass(frozen=True)
class Delays:
    """Of the short jobs, in seconds: how much later each started, and what it was allowed."""

    delays: Sequence[float]
    bounds: Sequence[float]

    @property
    def worst(self) -> float:
        """The longest delay."""
        return max(self.delays)

    @property
    def over(self) -> int:
        """How many jobs were delayed beyond their bound."""
        pairs = zip(self.delays, self.bounds, strict=True)
        return sum(delay > bound for delay, bound in pairs)


def documented() -> Catalog:
    """The catalog in the document."""
    found = re.search(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    if found is None:
        raise ValueError(f"{DOCUMENT.name} has no example of pools")
    return Catalog.model_validate(yaml.safe_load(found[1]))


def in_one_pool(catalog: Catalog) -> Catalog:
    """The same workers behind one queue."""
    workers = sum(pool.replicas.max for pool in catalog.pools)
    longest = max(pool.max_gpu_seconds for pool in catalog.pools)
    changes = {"replicas": Replicas(max=workers), "max_gpu_seconds": longest}
    return catalog.model_copy(update={"pools": (catalog.pools[0].model_copy(update=changes),)})


def traffic(catalog: Catalog, minutes: int = 60, seed: int = 0) -> list[TraceJob]:
    """Short jobs that keep the first pool's workers a third busy; every tenth minute, long ones."""
    model = catalog.model(catalog.default_model)
    draw = random.Random(seed)
    short, long = (job_seconds(model, steps) for steps in (SHORT_STEPS, LONG_STEPS))
    apart = 3 * short / catalog.pools[0].replicas.max
    jobs, now = [], 0.0
    while now < 60.0 * minutes:
        jobs.append(_job(now, "many", model.name, SHORT_STEPS, short))
        now += draw.expovariate(1 / apart)
    for minute in range(5, minutes, 10):
        jobs += [_job(60.0 * minute, "few", model.name, LONG_STEPS, long) for _ in range(8)]
    return numbered(jobs)


def job_seconds(model: Model, steps: int) -> float:
    """The estimate that admission routes by, for one picture of the default size."""
    size = model.defaults
    return model.gpu_seconds(
        Generation(
            model=model.name,
            prompt="-",
            negative_prompt="",
            width=size.width,
            height=size.height,
            num_inference_steps=steps,
            guidance_scale=size.guidance_scale,
            num_images=1,
            seed=0,
            scheduler=model.scheduler,
        )
    )


def _job(arrival: float, tenant: str, model: str, steps: int, seconds: float) -> TraceJob:
    return TraceJob(0, arrival, tenant, "text_to_image", model, 0, 1, steps, seconds)


def delays_of_short_jobs(catalog: Catalog, jobs: Sequence[TraceJob]) -> Delays:
    """Play the pools of ``catalog`` with and without the long jobs."""
    short = [job for job in jobs if job.steps == SHORT_STEPS]
    beside, bounds = _starts(catalog, jobs)
    alone, _ = _starts(catalog, short)
    return Delays(
        [beside[job.number] - alone[job.number] for job in short],
        [bounds[job.number] for job in short],
    )


def _starts(
    catalog: Catalog, jobs: Sequence[TraceJob]
) -> tuple[dict[int, float], dict[int, float]]:
    """When each job starts, and its bound, by its number."""
    by_pool: dict[str, list[TraceJob]] = {}
    for job in jobs:
        by_pool.setdefault(catalog.route(job.model, job.seconds).name, []).append(job)
    starts: dict[int, float] = {}
    bounds: dict[int, float] = {}
    for name, line in by_pool.items():
        setting = Setting(workers=catalog.pool(name).replicas.max)
        played = [replace(job, number=place) for place, job in enumerate(line)]
        outcome, ledger = darkroom(played, setting, Rules())
        for job, start, bound in zip(line, outcome.starts, ledger.bound, strict=True):
            starts[job.number], bounds[job.number] = start, bound
    return starts, bounds


def main() -> None:
    """Print both."""
    catalog = documented()
    jobs = traffic(catalog)
    figures = {}
    for name, pools in (("split", catalog), ("one pool", in_one_pool(catalog))):
        found = delays_of_short_jobs(pools, jobs)
        figures[name] = {
            "short_jobs": len(found.delays),
            "worst_delay_s": round(found.worst, 1),
            "beyond_their_bound": found.over,
        }
        print(
            f"{name:<10}{len(found.delays):>7} jobs of 4 steps, worst delay"
            f" {found.worst:6.1f} s, {found.over} beyond their bound"
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
