"""Memory over many jobs on more models than fit: flat, and never over the budget.

    python -m bench.memory [--jobs 2000] [--models 6] [--fit 2.5] [--catalog FILE]

The default model stands in the catalog under several names, each with weights of its own in memory;
the budget has room for ``--fit`` of them. The worker does a backlog that names them in turns, in
random order (seeded). After every load and every call it is noted what the models take, to the
byte, and what the process takes of the machine. Prints a table and, as its last line, one JSON
object.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry

from bench.workbench import CountingQueue, fill, open_in
from darkroom.catalog import Catalog, Model, load_catalog
from darkroom.generation import Generation
from darkroom.log import configure
from darkroom.metrics import WorkerMetrics
from darkroom.settings import DEFAULT_CATALOG, DarkroomSettings
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.base import GenerationTask, OnStep
from worker.engines.diffusers import DiffusersEngine
from worker.model_cache import ModelCache
from worker.models import locate, locate_lora
from worker.settings import WorkerSettings, restrain_libraries
from worker.wiring import build_worker

SIDE_PIXELS = 64


@dataclass(frozen=True)
class Sample:
    """Bytes after a load or a call: what the models take, and the whole process."""

    model_bytes: int
    process_bytes: int
    jobs_done: int


class WatchedEngine(DiffusersEngine):
    """The real engine, whose memory is looked at after everything it does."""

    def __init__(self, catalog: Catalog, threads: int) -> None:
        super().__init__("auto", partial(locate_lora, catalog=catalog), threads)
        self.names = [model.name for model in catalog.models]
        self.samples: list[Sample] = []
        self.loads = self.calls = self.made = 0

    def load(self, model: Model, folder: Path) -> None:
        """Load, and look."""
        super().load(model, folder)
        self.loads += 1
        self._look()

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> Any:
        """Generate, and look."""
        pictures = super().generate(batch, on_step)
        self.calls += 1
        self.made += len(batch)
        self._look()
        return pictures

    def _look(self) -> None:
        taken = sum(self.footprint(name).device_bytes for name in self.names)
        self.samples.append(Sample(taken, self.memory().used_bytes, self.made))


def many(catalog: Catalog, models: int, batch: int) -> Catalog:
    """Return the catalog with its default model under several names."""
    one = catalog.model(catalog.default_model)
    copies = tuple(one.model_copy(update={"name": f"{one.name}-{n}"}) for n in range(models))
    names = tuple(model.name for model in copies)
    pool = catalog.pools[0].model_copy(update={"models": names, "concurrency": batch})
    changes = {"models": copies, "pools": (pool,), "default_model": names[0]}
    return catalog.model_copy(update=changes)


def asked(model: Model, seed: int) -> Generation:
    """A job that is done in no time."""
    return Generation(
        model=model.name,
        prompt="a red circle",
        negative_prompt="",
        width=SIDE_PIXELS,
        height=SIDE_PIXELS,
        num_inference_steps=1,
        guidance_scale=1.0,
        num_images=1,
        seed=seed,
        scheduler=model.scheduler,
    )


async def measure(catalog: Catalog, jobs: int, fit: float, threads: int) -> dict[str, float]:
    """Do the jobs; return what was seen."""
    engine, pool = WatchedEngine(catalog, threads), catalog.pools[0]
    one = engine.expect(catalog.models[0], locate(catalog.models[0], catalog)).device_bytes
    budget = int(one * fit)
    thread = EngineThread(engine, ModelCache(engine, device_bytes=budget))
    draw = random.Random(1)
    wanted = [asked(draw.choice(catalog.models), seed) for seed in range(jobs)]
    with tempfile.TemporaryDirectory() as folder:
        backends = open_in(Path(folder), pool.name)
        queue = backends.queues[pool.name]
        assert isinstance(queue, CountingQueue)
        queue.left, drain = jobs, Drain(60)
        await fill(backends, pool, catalog, wanted)
        metrics = WorkerMetrics(CollectorRegistry())
        worker = build_worker(
            DarkroomSettings(), WorkerSettings(), catalog, pool, backends, thread, drain, metrics
        )
        started = time.perf_counter()
        running = asyncio.create_task(worker.run())
        await queue.emptied.wait()
        seconds = time.perf_counter() - started
        drain.begin("done")
        await running
        await backends.close()
    return summary(engine, jobs, budget, one, seconds)


def summary(
    engine: WatchedEngine, jobs: int, budget: int, one: int, seconds: float
) -> dict[str, float]:
    """Peaks by quarter of the jobs, in MiB, and what they are to each other and to the budget."""
    mebi = 2**20
    quarters = [
        [each for each in engine.samples if jobs * n <= 4 * each.jobs_done <= jobs * (n + 1)]
        for n in range(4)
    ]
    peaks = [max(each.process_bytes for each in some) for some in quarters]
    models_peak = max(each.model_bytes for each in engine.samples)
    return {
        "last_to_first_quarter_peak": peaks[-1] / peaks[0],
        "models_peak_to_budget": models_peak / budget,
        "samples_over_budget": sum(each.model_bytes > budget for each in engine.samples),
        **{f"quarter_{n + 1}_peak_mib": peak / mebi for n, peak in enumerate(peaks)},
        "median_process_mib": statistics.median(x.process_bytes for x in engine.samples) / mebi,
        "budget_mib": budget / mebi,
        "one_model_mib": one / mebi,
        "jobs": jobs,
        "loads": engine.loads,
        "jobs_per_call": jobs / engine.calls,
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--fit", type=float, default=2.5, help="models that fit the budget")
    parser.add_argument("--batch", type=int, default=4, help="jobs that the worker runs at once")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--catalog", type=Path, default=DEFAULT_CATALOG)
    given = parser.parse_args()
    restrain_libraries()
    configure("error", "console", "bench")
    torch.set_num_threads(given.threads)
    catalog = many(load_catalog(given.catalog), given.models, given.batch)
    result = asyncio.run(measure(catalog, given.jobs, given.fit, given.threads))
    for name, value in result.items():
        print(f"{name:<30}{value:>12.3f}")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
