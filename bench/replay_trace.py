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
    jobs: int = 1500, models: int = 30, tenants: int = 200, seed: int = 1
) -> list[TraceJob]:
    """Make a small trace: models and tenants by Zipf's law, a tenant's jobs in bursts of one model.

    Days have quiet and busy hours (a sine); run times are log-normal around a mean per model.
    """
    draw = random.Random(seed)
    by_rank = [1 / rank for rank in range(1, max(models, tenants) + 1)]
    made: list[TraceJob] = []
    now = 0.0
    while len(made) < jobs:
        busy = 1.05 + math.sin(2 * math.pi * now / (24 * HOUR))
        now += draw.expovariate(busy / 400)
        model = draw.choices(range(models), by_rank[:models])[0]
        tenant = draw.choices(range(tenants), by_rank[:tenants])[0]
        images = draw.choices((1, 2, 4, 8), (60, 8, 20, 12))[0]
        at = now
        for _ in range(min(jobs - len(made), 1 + int(draw.expovariate(0.4)))):
            seconds = round(10 + 20 * (model % 7) / 6 * draw.lognormvariate(0, 0.4) + images, 1)
            made.append(
                TraceJob(
                    0,
                    at,
                    f"T{tenant:03}",
                    "text_to_image",
                    f"M{model:02}",
                    draw.choices((0, 1), (85, 15))[0],
                    images,
                    draw.choices((30, 40), (90, 10))[0],
                    seconds,
                )
            )
            at += draw.expovariate(1 / 30)
    return numbered(made)
