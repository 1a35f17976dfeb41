"""Queues and stores, measured: the Service Bus adapter beside the bare SDK, many jobs beside few.

    python -m bench.backends [--jobs 100000] [--rounds 7] [--messages 200] [--skip-cost]

Everything runs on this machine's emulators, each in a process of its own; what is compared takes
turns within one run, so that what else the machine does falls on both alike. Prints tables and, as
its last line, one JSON object: ``throughput_ratio`` (adapter to SDK, at least 0.8 is asked for),
``latency_ratio`` (at most 1.5), and per backend and operation ``cost_ratio`` (many to few jobs).

Azurite looks through a whole table for every request, which Azure's index does not: with 100,000
jobs it takes minutes to fill and answers several times slower, whoever asks. So beside the adapter
the bare SDK makes the same requests on the same tables (``bare_list``, ``bare_submit``), and
``own_cost_ratio`` says how the adapter's cost over those grows with the number of jobs. The count
of requests to the tables is what Azure would be asked.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.backends_cost import Cost, Filled, compare, fill_azure, fill_sqlite, own_ratio
from bench.backends_speed import Speed, measure
from emulators import azurite
from emulators.service_bus import process

FEW = 100


def _print_speed(speed: Speed) -> None:
    print(f"{'Service Bus':24}{'bare SDK':>12}{'adapter':>12}{'ratio':>8}")
    for name, bare, adapter, ratio in (
        ("messages per second", speed.bare_per_second, speed.adapter_per_second,
         speed.throughput_ratio),
        ("idle latency, ms", speed.bare_latency_ms, speed.adapter_latency_ms,
         speed.latency_ratio),
    ):  # fmt: skip
        print(f"{name:24}{bare:12.2f}{adapter:12.2f}{ratio:8.2f}")


def _print_costs(costs: list[Cost], many: int) -> None:
    print(f"\n{'ms a call':18}{f'{FEW} jobs':>12}{f'{many} jobs':>14}{'ratio':>8}  requests")
    for cost in costs:
        name = f"{cost.backend} {cost.operation}"
        requests = f"{cost.few_requests:g} / {cost.many_requests:g}" if cost.few_requests else ""
        print(f"{name:18}{cost.few_ms:12.2f}{cost.many_ms:14.2f}{cost.ratio:8.2f}  {requests}")


async def _costs(arguments: argparse.Namespace, folder: Path) -> list[Cost]:
    many = arguments.jobs
    few_sqlite, many_sqlite = await fill_sqlite(folder, FEW), await fill_sqlite(folder, many)
    costs = await _compare("sqlite", few_sqlite, many_sqlite, arguments.calls)
    names = [f"short{FEW}", f"short{many}"]
    async with azurite.running() as storage, process.running(queues=names) as bus:
        few_azure = await fill_azure(storage, bus.endpoints, FEW)
        many_azure = await fill_azure(storage, bus.endpoints, many)
        costs += await _compare("azure", few_azure, many_azure, arguments.calls)
    return costs


async def _compare(backend: str, few: Filled, many: Filled, calls: int) -> list[Cost]:
    try:
        return await compare(backend, few, many, calls)
    finally:
        await asyncio.gather(few.close(), many.close())


async def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    async with process.running(queues=["bare", "adapter"]) as bus:
        speed = await measure(
            bus.endpoints, arguments.rounds, arguments.messages, arguments.samples
        )
    _print_speed(speed)
    result: dict[str, Any] = {
        "throughput_ratio": round(speed.throughput_ratio, 3),
        "latency_ratio": round(speed.latency_ratio, 3),
        "bare_per_second": round(speed.bare_per_second, 1),
        "adapter_per_second": round(speed.adapter_per_second, 1),
    }
    if arguments.skip_cost:
        return result
    with tempfile.TemporaryDirectory() as folder:
        costs = await _costs(arguments, Path(folder))
    _print_costs(costs, arguments.jobs)
    result["jobs"] = arguments.jobs
    result["cost_ratio"] = {
        f"{cost.backend}_{cost.operation}": round(cost.ratio, 3) for cost in costs
    }
    result["requests"] = {
        f"{cost.backend}_{cost.operation}": [cost.few_requests, cost.many_requests]
        for cost in costs
        if cost.few_requests
    }
    azure = [cost for cost in costs if cost.backend == "azure"]
    result["own_cost_ratio"] = {
        f"azure_{operation}": round(own_ratio(azure, operation), 3)
        for operation in ("list", "submit")
    }
    print("adapter over bare SDK, many to few:", result["own_cost_ratio"])
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="how many waiting jobs are many")
    parser.add_argument("--calls", type=int, default=40, help="calls of each operation")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of throughput")
    parser.add_argument("--messages", type=int, default=200, help="messages in a round")
    parser.add_argument("--samples", type=int, default=100, help="samples of latency")
    parser.add_argument("--skip-cost", action="store_true", help="measure the speed alone")
    print(json.dumps(asyncio.run(_run(parser.parse_args()))))


if __name__ == "__main__":
    main()
