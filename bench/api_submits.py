"""How many submits a second the API takes, beside a bare endpoint and one on Celery and Redis."""

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import api_servers
from bench.api_client import submits
from bench.api_servers import Server

SERVERS = {"ours": api_servers.ours, "bare": api_servers.bare, "celery": api_servers.on_celery}
WARM_UP = 50


@dataclass
class Rates:
    """Of one server at one concurrency: submits a second and processor time, round by round."""

    per_second: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)


async def measure(
    folder: Path, names: Sequence[str], concurrencies: Sequence[int], rounds: int, count: int
) -> dict[tuple[str, int], Rates]:
    """Alternate the servers, ``count`` submits each, at every concurrency in every round."""
    found: defaultdict[tuple[str, int], Rates] = defaultdict(Rates)
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(SERVERS[name](folder)) for name in names}
        for server in servers.values():
            await submits(server.port, WARM_UP, 1)
        for number in range(rounds):
            order = names if number % 2 else list(reversed(names))
            for connections in concurrencies:
                for name in order:
                    await _one(servers[name], count, connections, found[name, connections])
    return found


async def _one(server: Server, count: int, connections: int, rates: Rates) -> None:
    before = server.processor_seconds
    load = await submits(server.port, count, connections)
    rates.per_second.append(load.per_second)
    rates.processor_ms.append((server.processor_seconds - before) * 1000 / count)


def summary(found: dict[tuple[str, int], Rates]) -> dict[str, float]:
    """Medians over the rounds, and what ours is of each other's; more is better but for ``_ms``."""
    told: dict[str, float] = {}
    for (name, connections), rates in found.items():
        told[f"{name}_per_second_{connections}"] = statistics.median(rates.per_second)
        told[f"{name}_processor_ms_{connections}"] = statistics.median(rates.processor_ms)
    for name, connections in found:
        if name == "ours" or ("ours", connections) not in found:
            continue
        for kind in ("per_second", "processor_ms"):
            mine = told[f"ours_{kind}_{connections}"]
            told[f"to_{name}_{kind}_{connections}"] = mine / told[f"{name}_{kind}_{connections}"]
    return told
