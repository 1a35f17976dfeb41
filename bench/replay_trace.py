"""The jobs that a replay runs: read from a trace file, or generated."""

import csv
import gzip
import io
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = (
    *("arrival_s", "tenant", "kind", "model", "loras", "images", "steps"),
    *("prompt_chars", "exec_s", "status"),
)
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One request. Seconds; ``arrival`` since the first request; ``number`` is its place."""

    number: int
    arrival: float
    tenant: str
    kind: str
    model: str
    loras: int
    images: int
    steps: int
    seconds: float


def read(path: Path) -> list[TraceJob]:
    """Read a CSV (or .csv.gz) with `COLUMNS`, sorted by arrival, the first at 0.

    Every row that held a device counts, whatever became of it: a failed request used its seconds.
    Raises `ValueError` that names the column or the line.
    """
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    rows = csv.DictReader(io.StringIO(text))
    if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
        raise ValueError(f"{path}: column {missing[0]} is missing")
    return numbered(list(_jobs(path, rows)))


def _jobs(path: Path, rows: "csv.DictReader[str]") -> Iterator[TraceJob]:
    for row in rows:
        try:
            seconds = float(row["exec_s"])
            if seconds <= 0:  # never reached a device
                continue
            yield TraceJob(
                0,
                float(row["arrival_s"]),
                row["tenant"],
                row["kind"],
                row["model"],
                int(row["loras"]),
                max(1, int(row["images"])),
                int(row["steps"]),
                seconds,
            )
        except ValueError as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}") from None


def numbered(jobs: Sequence[TraceJob]) -> list[TraceJob]:
    """Sort by arrival, number, and move the first to 0."""
    line = sorted(jobs, key=lambda job: job.arrival)
    start = line[0].arrival if line else 0.0
    return [
        TraceJob(
            number,
            job.arrival - start,
            job.tenant,
            job.kind,
            job.model,
            job.loras,
            job.images,
            job.steps,
            job.seconds,
        )
        for number, job in enumerate(line)
    ]


def generate(
    jobs: int = 6000, models: int = 40, tenants: int = 300, seed: int = 1
) -> list[TraceJob]:
    """Make a small trace: models and tenants by Zipf's law, a tenant's jobs in bursts of one model.

    Hours differ as they do in production: the rate of each is drawn from a log-normal (sigma 1.2)
    and higher by day. Run times are log-normal around a mean per model.
    """
    draw = random.Random(seed)
    by_rank = [rank**-1.25 for rank in range(1, max(models, tenants) + 1)]
    made: list[TraceJob] = []
    hour = 0
    while len(made) < jobs:
        rate = draw.lognormvariate(0, 1.2) * (1.05 + math.sin(2 * math.pi * hour / 24))
        at = hour * HOUR + draw.expovariate(rate / 400)
        while at < (hour + 1) * HOUR and len(made) < jobs:
            model = draw.choices(range(models), by_rank[:models])[0]
            tenant = draw.choices(range(tenants), by_rank[:tenants])[0]
            made += _burst(draw, at, f"T{tenant:03}", model)[: jobs - len(made)]
            at += draw.expovariate(rate / 400)
        hour += 1
    return numbered(made)


def _burst(draw: random.Random, at: float, tenant: str, model: int) -> list[TraceJob]:
    """What one tenant asks of one model, some tens of seconds apart."""
    images = draw.choices((1, 2, 4, 8), (60, 8, 20, 12))[0]
    steps = draw.choices((30, 40), (90, 10))[0]
    loras = draw.choices((0, 1), (85, 15))[0]
    burst = []
    for _ in range(1 + int(draw.expovariate(1.2))):
        seconds = round((14 + 3 * (model % 7)) * draw.lognormvariate(0, 0.5) + images, 1)
        burst.append(
            TraceJob(0, at, tenant, "text_to_image", f"M{model:02}", loras, images, steps, seconds)
        )
        at += draw.expovariate(1 / 30)
    return burst
