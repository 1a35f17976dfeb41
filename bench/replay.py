"""What a scheduling policy costs in GPU seconds and waits, replayed on a trace of requests.

``python -m bench.replay --trace FILE`` runs the functions of worker/scheduler.py beside simpler
policies; docs/scheduling.md says what is simulated, what is assumed and what the columns mean.
Without ``--trace`` a small trace is generated. The last line is one JSON object.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.replay_batching import Batching, parse_points
from bench.replay_pool import Outcome, Setting, busy_share
from bench.replay_simple import in_order, loaded_once, per_model
from bench.replay_trace import TraceJob, generate, numbered, read
from bench.replay_window import Ledger, darkroom
from worker.scheduler import Rules

BATCH_SPEED_UP = "8:1.7"
"""Of the demo model on a CPU, by bench.batching; a GPU that one picture leaves idle gains more."""

HALVES = {"all": (0.0, 1.0), "first": (0.0, 0.5), "second": (0.5, 1.0)}


@dataclass(frozen=True)
class Row:
    """One policy's figures. Seconds; waits run from arrival to the start of the denoising."""

    gpu_seconds: float
    loads: int
    p50_wait_s: float
    p95_wait_s: float
    worst_extra_wait_s: float


@dataclass(frozen=True)
class Report:
    """A replay's figures; ``bound`` is what the scheduler's own promise is checked with."""

    speed: float
    policies: dict[str, Row]
    batching: dict[str, Row]
    tenants: dict[str, float]
    bound: dict[str, float]


def replay(
    jobs: Sequence[TraceJob], setting: Setting, busy: float, rules: Rules, batching: Batching
) -> Report:
    """Play every policy on the same jobs, workers and load times."""
    speed = speed_for(jobs, setting, busy)
    cached = replace(setting, speed=speed)
    fifo = in_order(jobs, replace(cached, fits=1))
    lru = in_order(jobs, cached)
    ours, ledger = darkroom(jobs, cached, rules)
    outcomes = {
        "fifo": (fifo, fifo),
        "lru": (lru, lru),
        "per_model": (per_model(jobs, cached), lru),
        "darkroom": (ours, lru),
        "clairvoyant": (loaded_once(jobs, cached), lru),
    }
    unhurried = replace(batching, points=((1, 1.0),))
    batched = {
        "affinity alone": ours,
        "and batching, no speed-up": darkroom(jobs, cached, rules, unhurried)[0],
        "and batching, as measured": darkroom(jobs, cached, rules, batching)[0],
    }
    return Report(
        speed,
        {name: row(outcome, reference) for name, (outcome, reference) in outcomes.items()},
        {name: row(outcome, lru) for name, outcome in batched.items()},
        {name: worst_tenant(jobs, *pair) for name, pair in outcomes.items()},
        bound_figures(ledger),
    )


def speed_for(jobs: Sequence[TraceJob], setting: Setting, busy: float) -> float:
    """How much faster jobs must arrive for first in, first out, one model loaded, to be so busy.

    Busy is GPU seconds by the workers' time from the first arrival to the end of the last job.
    """
    one = replace(setting, fits=1)
    low, high = 1e-3, 1e6
    for _ in range(40):
        middle = float((low * high) ** 0.5)
        share = busy_share(in_order(jobs, replace(one, speed=middle)), setting.workers)
        if abs(share - busy) < 0.0005:
            return middle
        low, high = (middle, high) if share < busy else (low, middle)
    return high


def row(outcome: Outcome, reference: Outcome) -> Row:
    """Sum up a policy; ``reference`` is first in, first out with as many pipelines a worker."""
    extras = extra_waits(outcome, reference)
    return Row(
        round(outcome.gpu_seconds, 1),
        outcome.loads,
        round(percentile(outcome.waits, 0.5), 1),
        round(percentile(outcome.waits, 0.95), 1),
        round(max(0.0, *extras), 1),
    )


def extra_waits(outcome: Outcome, reference: Outcome) -> list[float]:
    """By how much each job started later than under ``reference``; below 0 if earlier."""
    pairs = zip(outcome.starts, reference.starts, strict=True)
    return [start - then for start, then in pairs]


def worst_tenant(jobs: Sequence[TraceJob], outcome: Outcome, reference: Outcome) -> float:
    """The mean extra wait of the tenant that fared worst."""
    sums: dict[str, list[float]] = {}
    for job, extra in zip(jobs, extra_waits(outcome, reference), strict=True):
        sums.setdefault(job.tenant, []).append(extra)
    return round(max(0.0, *(sum(extras) / len(extras) for extras in sums.values())), 1)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile."""
    return sorted(values)[max(0, round(share * len(values)) - 1)]


def bound_figures(ledger: Ledger) -> dict[str, float]:
    """What the scheduler promised and kept, in seconds (docs/scheduling.md)."""
    return {
        "worst_overtaken_s": round(max(ledger.extra), 1),
        "largest_bound_s": round(max(ledger.bound), 1),
        "over_by_estimates_s": round(max(0.0, ledger.misjudged), 1),
        "over_by_longer_runs_s": round(max(0.0, ledger.over), 1),
        "given_back": ledger.gave_back,
        "handed_on": ledger.handed_on,
    }


def show(report: Report) -> None:
    """Print the tables and, as the last line, the policies' figures as JSON."""
    base = report.policies["fifo"].gpu_seconds
    heads = ("", "GPU s", "saved", "loads", "p50 wait", "p95 wait", "worst extra", "worst tenant")
    print("{:<28}{:>10}{:>8}{:>8}{:>10}{:>10}{:>13}{:>14}".format(*heads))
    for name, figures in report.policies.items():
        print(line(name, figures, base) + f"{report.tenants[name]:>14.0f}")
    print("\nours, with batching beside it")
    for name, figures in report.batching.items():
        print(line(name, figures, base))
    print("\nthe bound, without batching: " + json.dumps(report.bound))
    print(json.dumps({name: asdict(figures) for name, figures in report.policies.items()}))


def line(name: str, figures: Row, base: float) -> str:
    """One line of a table."""
    saved = 1 - figures.gpu_seconds / base
    return (
        f"{name:<28}{figures.gpu_seconds:>10.0f}{saved:>8.1%}{figures.loads:>8}"
        f"{figures.p50_wait_s:>10.0f}{figures.p95_wait_s:>10.0f}{figures.worst_extra_wait_s:>13.0f}"
    )


def part_of(jobs: Sequence[TraceJob], part: str) -> list[TraceJob]:
    """The jobs of a half, counted in jobs."""
    begin, end = (int(share * len(jobs)) for share in HALVES[part])
    return numbered(jobs[begin:end])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trace", type=Path, help="a .csv or .csv.gz; generated if left out")
    parser.add_argument("--part", choices=HALVES, default="all", help="half of the trace's jobs")
    parser.add_argument("--seed", type=int, default=0, help="of the load times")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--fits", type=int, default=3, help="pipelines that fit a worker")
    parser.add_argument("--busy", type=float, default=0.9, help="share of time, for fifo")
    parser.add_argument("--window", type=int, default=Rules().most, help="most messages held")
    parser.add_argument("--patience", type=float, default=Rules().patience)
    parser.add_argument("--batch", type=int, default=8, help="most jobs and pictures of a call")
    parser.add_argument("--batch-speedup", default=BATCH_SPEED_UP, type=parse_points)
    parser.add_argument("--json", type=Path, help="where to write every figure")
    return parser.parse_args()


def main() -> None:
    """Replay, print, and fail if the bound was not kept."""
    asked = arguments()
    jobs = part_of(read(asked.trace) if asked.trace else generate(), asked.part)
    setting = Setting(workers=asked.workers, fits=asked.fits, seed=asked.seed)
    rules = Rules(patience=asked.patience, most=asked.window)
    batching = Batching(asked.batch, asked.batch, asked.batch_speedup)
    report = replay(jobs, setting, asked.busy, rules, batching)
    print(f"{len(jobs)} jobs, {asked.workers} workers, arrivals {report.speed:.2f} times as fast\n")
    if asked.json:
        asked.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    show(report)
    if report.bound["over_by_estimates_s"] > 0:
        raise SystemExit("the scheduler let a job be overtaken beyond its bound")


if __name__ == "__main__":
    main()
