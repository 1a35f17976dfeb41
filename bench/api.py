"""The API under load: who waits costs little, and a submit costs little more than its checks.

    python -m bench.api [--polls 1000] [--streams 200] [--submits 200] [--rounds 5]
                        [--part waiters|submits]

Waiters: submit latency with callers who wait, beside the same process without them, and memory for
each. Submits: the API on the embedded store, beside a bare endpoint that checks the same body, and
beside one on Celery and Redis (installed into .tools at the first call; needs Debian's
redis-server), in alternation. Prints a table and, as its last line, one JSON object.
docs/measurements.md says what is what.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from bench import api_servers, api_submits, api_waiters

CONCURRENCIES = (1, 16, 64)
PARTS = ("waiters", "submits")


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Run the parts that are asked for; return every figure by name."""
    told: dict[str, float] = {}
    if given.part != "submits":
        crowds = api_waiters.crowds(given.polls, given.streams)
        costs = [await api_waiters.measure(folder / c.name, c, given.submits) for c in crowds]
        told |= api_waiters.summary(costs)
    if given.part != "waiters":
        names = [name for name in api_submits.SERVERS if name != "celery" or _can_compare()]
        found = await api_submits.measure(
            folder / "submits", names, CONCURRENCIES, given.rounds, given.submits
        )
        told |= api_submits.summary(found)
    return told


def _can_compare() -> bool:
    if not api_servers.has_redis():
        print("redis-server is not installed: Celery is left out", file=sys.stderr)
        return False
    api_servers.celery_python()
    return True


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--polls", type=int, default=1_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--submits", type=int, default=200, help="per server and measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=PARTS, help="only this one")
    given = parser.parse_args()
    api_servers.raise_file_limit(given.polls + given.streams + 500)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        told = asyncio.run(measure(given, Path(folder)))
    told |= {"load_before": load_before, "load_after": os.getloadavg()[0]}
    print(f"{os.cpu_count()} processors\n")
    for name, value in told.items():
        print(f"{name:<36}{value:>12.3f}")
    print(json.dumps({name: round(value, 4) for name, value in told.items()}))


if __name__ == "__main__":
    main()
