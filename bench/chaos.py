"""The chaos run: jobs go in while everything around them breaks; then every job is accounted for.

    python -m bench.chaos --jobs 1000 --seed 1 --backend embedded|azure

Prints the faults that really took place, the verdict, and as its last line one JSON object with
``jobs, lost, doubled, wrong, poison_dead_lettered`` and ``faults``. Exits 1 unless all is well.

A job is *lost* that did not end, or ended as Failed; *doubled* if one idempotency key made two
jobs, an end was replaced by another, or more pictures are stored than were asked for; *wrong* if
its pictures are not those of its prompt and seed.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import yaml

from bench.chaos_audit import Verdict, audit
from bench.chaos_embedded import EmbeddedBackends
from bench.chaos_stack import Stack
from darkroom.catalog import load_catalog
from darkroom.errors import DarkroomError
from darkroom.jobs import Job
from darkroom.jobstores.base import JobFilter
from darkroom.messages import message_for
from darkroom.settings import DarkroomSettings, load
from darkroom.wiring import Backends, open_backends

LEASE_SECONDS = 5.0
MAX_DELIVERIES = 30  # a healthy job is hit again and again here
STORAGE_FAULT_RATE = 0.02
SETTLE_SECONDS = 300.0
WORKERS = 3
BATCH = 4
"""Jobs of one pipeline call."""
SUBMITTERS = 8
TENANT = "local"

ENV = {
    "DARKROOM_WORKER_ENGINE": "fake",
    "DARKROOM_WORKER_FAKE_STEP_SECONDS": "0.02",
    "DARKROOM_WORKER_GRACE_SECONDS": "5",
    "DARKROOM_WORKER_DEPTH_SECONDS": "1",
    "DARKROOM_WORKER_RETRY_BASE_SECONDS": "0.2",
    "DARKROOM_WORKER_RETRY_CAP_SECONDS": "2",
    "DARKROOM_API_SWEEP_SECONDS": "1",
    "DARKROOM_API_UNSENT_SECONDS": "3",
    "DARKROOM_LEASE_SECONDS": str(LEASE_SECONDS),
    "DARKROOM_RENEW_SECONDS": "1.5",
    "DARKROOM_MAX_DELIVERY_COUNT": str(MAX_DELIVERIES),
    "DARKROOM_LOG_LEVEL": "warning",
}


class ChaosBackends(Protocol):
    """What a kind of backend brings to the run."""

    env: Mapping[str, str]
    inspect_env: Mapping[str, str]

    def running(self) -> contextlib.AbstractAsyncContextManager[None]: ...

    def faults(
        self, rng: random.Random, stack: Stack, lease_seconds: float
    ) -> dict[str, Callable[[], Awaitable[bool]]]: ...

    async def images_of(self, job_id: str) -> set[str]: ...


@dataclass(frozen=True)
class RawMessage:
    """A message that no API sent: a second copy, or poison."""

    message_id: str
    body: bytes

    @property
    def properties(self) -> Mapping[str, str]:
        return {}

    def encode(self) -> bytes:
        return self.body


class Run:
    """One chaos run. All choices come from ``rng``; their moments come from the machine."""

    def __init__(
        self, stack: Stack, inside: Backends, rng: random.Random, count: int, kind: ChaosBackends
    ) -> None:
        self.stack = stack
        self.inside = inside
        self.queue = next(iter(inside.queues.values()))
        self.rng = rng
        self.count = count
        self.kind = kind
        self.job_ids: dict[int, str] = {}
        self.first_ends: dict[str, Job] = {}
        self.faults: collections.Counter[str] = collections.Counter()
        self.poison: set[str] = set()
        self.copies = 0
        self.restarts = 0
        self.most_faults = math.inf
        self.asleep: set[asyncio.Task[None]] = set()

    # --- what callers do

    async def submit_all(self) -> None:
        """Submit every job by its idempotency key, trying until it is admitted; cancel some."""
        numbers = iter(range(self.count))
        async with httpx.AsyncClient(base_url=self.stack.url, timeout=20) as client:

            async def submit_some() -> None:
                for number in numbers:
                    await self._submit(client, number)

            await asyncio.gather(*(submit_some() for _ in range(SUBMITTERS)))

    async def _submit(self, client: httpx.AsyncClient, number: int) -> None:
        choose = random.Random(self.rng.randrange(2**32))
        body = {
            "prompt": f"chaos {number}",
            "width": 64,
            "height": 64,
            "num_inference_steps": choose.randint(2, 6),
            "num_images": choose.choice((1, 1, 1, 2)),
            "seed": number,
            "tags": {"number": str(number)},
        }
        key = {"Idempotency-Key": f'"chaos-{number}"'}
        job = await self._insist(client, "/v1/jobs", body, key)
        self.job_ids[number] = job["id"]
        if choose.random() < 0.05:
            await asyncio.sleep(choose.uniform(0, 0.5))
            await self._insist(client, f"/v1/jobs/{job['id']}:cancel", None, {})

    async def _insist(
        self, client: httpx.AsyncClient, path: str, body: Any, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.post(path, json=body, headers=dict(headers))
                if answer.status_code in (200, 202):
                    content: dict[str, Any] = answer.json()
                    return content
                if answer.status_code < 500 and answer.status_code not in (409, 429):
                    raise AssertionError(f"{path} answered {answer.status_code}: {answer.text}")
            await asyncio.sleep(0.1)

    # --- what goes wrong

    def actions(self) -> dict[str, Callable[[], Awaitable[bool]]]:
        """Return every fault that can be injected from here; each tells whether it took place."""
        return {
            "worker_killed": self._kill_worker,
            "api_killed": self._kill_api,
            "worker_frozen": self._freeze_worker,
            "delivered_twice": self._deliver_twice,
            **self.kind.faults(self.rng, self.stack, LEASE_SECONDS),
        }

    async def break_things(self) -> None:
        """Inject one fault after another, up to ``most_faults``, until cancelled."""
        actions = self.actions()
        first = list(actions)
        self.rng.shuffle(first)
        while True:
            await asyncio.sleep(self.rng.uniform(0.1, 0.6))
            name = first.pop() if first else self.rng.choice(list(actions))
            with contextlib.suppress(DarkroomError, OSError):
                if self.faults.total() < self.most_faults and await actions[name]():
                    self.faults[name] += 1
            self.restarts += self.stack.revive()

    async def _kill_worker(self) -> bool:
        return self.stack.kill(self.rng.choice(self.stack.workers))

    async def _kill_api(self) -> bool:
        return self.stack.kill("api")

    async def _freeze_worker(self) -> bool:
        """Let one worker sleep past its lease and wake as a zombie, while other things break."""
        name = self.rng.choice(self.stack.workers)
        sleep = asyncio.create_task(self.stack.freeze(name, LEASE_SECONDS * 1.4))
        self.asleep.add(sleep)
        sleep.add_done_callback(self.asleep.discard)
        return True

    async def _deliver_twice(self) -> bool:
        if not self.job_ids:
            return False
        job = await self.inside.jobs.get(self.rng.choice(list(self.job_ids.values())))
        self.copies += 1
        copy = RawMessage(f"{job.id}.copy{self.copies}", message_for(job).encode())
        await self.queue.send(copy)
        return True

    async def send_poison(self) -> None:
        """Put messages on the queue that no worker can read."""
        bodies = (b"\x00 not a message", b'{"version": 99, "job_id": "local-of-the-future"}', b"{}")
        for number in range(max(3, self.count // 100)):
            poison = RawMessage(f"poison-{number}", bodies[number % len(bodies)])
            while True:
                with contextlib.suppress(DarkroomError):
                    await self.queue.send(poison)
                    break
                await asyncio.sleep(0.2)
            self.poison.add(poison.message_id)

    # --- what is seen

    async def watch_until_all_ended(self) -> None:
        """Note each job's first terminal state; return when every job has one, or time is up."""
        ends = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends:
            waiting = [job for job in self.job_ids.values() if job not in self.first_ends]
            for job_id in waiting:
                with contextlib.suppress(DarkroomError):
                    job = await self.inside.jobs.get(job_id)
                    if job.status.is_terminal:
                        self.first_ends[job_id] = job
            if len(self.first_ends) == self.count:
                return
            await asyncio.sleep(0.5)

    async def wait_for_quiet(self) -> None:
        """Wait until the queue holds nothing but dead letters, so that late duplicates are over."""
        ends = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(DarkroomError):
                depth = await self.queue.depth()
                if depth.active == 0 and depth.scheduled == 0:
                    return
            self.restarts += self.stack.revive()
            await asyncio.sleep(0.5)

    async def records(self) -> dict[str, Job]:
        """Return every record of the tenant."""
        jobs: dict[str, Job] = {}
        cursor = None
        while True:
            page = await self.inside.jobs.list(TENANT, JobFilter(), limit=100, cursor=cursor)
            jobs.update({job.id: job for job in page.jobs})
            cursor = page.next_cursor
            if cursor is None:
                return jobs

    @staticmethod
    def doubled_keys(jobs: Mapping[str, Job]) -> set[str]:
        """Return the jobs that share an idempotency key with another."""
        by_number = collections.defaultdict(list)
        for job in jobs.values():
            by_number[job.tags["number"]].append(job.id)
        return {job for made in by_number.values() if len(made) > 1 for job in made}


async def run_chaos(
    jobs: int, seed: int, backend: str, folder: Path, most_faults: float = math.inf
) -> dict[str, Any]:
    """Run, audit, and return what the last line says.

    ``most_faults`` bounds what is injected between processes, for machines so slow that a process
    would be killed again before it has started.
    """
    kind = _backends(backend, folder)
    async with kind.running():
        env = {**ENV, **kind.env, "DARKROOM_CATALOG": str(_write_catalog(folder))}
        stack = Stack(env, workers=WORKERS, seed=seed, rate=STORAGE_FAULT_RATE, folder=folder)
        inside = _inside({**kind.inspect_env, "DARKROOM_CATALOG": env["DARKROOM_CATALOG"]})
        run = Run(stack, inside, random.Random(seed), jobs, kind)
        run.most_faults = most_faults
        try:
            await stack.start_all()
            async with _chaos(run):
                await asyncio.gather(run.submit_all(), run.send_poison())
                await run.watch_until_all_ended()
            await run.watch_until_all_ended()  # what the faults left unfinished, they gone
            await run.wait_for_quiet()
            records = await run.records()
            # a job that was admitted but whose record is gone is not in the list
            missing = set(run.job_ids.values()) - records.keys()
            verdict = await audit(records, run.first_ends, inside.images, kind.images_of)
            verdict.lost |= missing
            verdict.doubled |= run.doubled_keys(records)
            dead = {letter.message_id for letter in await run.queue.dead_letters(1000)}
        finally:
            stack.stop_all()
            await inside.close()
    if stack.ledger.exists():
        run.faults.update(stack.ledger.read_text().split())
    return _summary(run, verdict, dead, records)


@contextlib.asynccontextmanager
async def _chaos(run: Run) -> AsyncIterator[None]:
    """Break things for as long as the block runs."""
    breaking = asyncio.create_task(run.break_things())
    try:
        yield
    finally:
        breaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await breaking  # a fault that could not be injected is an error of the run
        await asyncio.gather(*run.asleep, return_exceptions=True)


def _write_catalog(folder: Path) -> Path:
    """Write the catalog of one model without weights: the fake engine draws its pictures."""
    path = folder / "catalog.yaml"
    model = {"name": "noise", "source": ".", "revision": "1", "licence": "MIT"}
    model |= {"seconds_per_megapixel_step": 0.1, "load_seconds": 0}
    pool = {"name": "chaos", "models": ["noise"], "max_gpu_seconds": 5}
    pool |= {"concurrency": BATCH, "replicas": {"min": WORKERS, "max": WORKERS}}
    path.write_text(yaml.safe_dump({"default_model": "noise", "models": [model], "pools": [pool]}))
    return path


def _backends(name: str, folder: Path) -> ChaosBackends:
    if name == "embedded":
        return EmbeddedBackends(folder)
    from bench.chaos_azure import AzureBackends  # noqa: PLC0415 - needs the azure extra

    return AzureBackends(folder, LEASE_SECONDS, MAX_DELIVERIES)


def _inside(env: Mapping[str, str]) -> Backends:
    """Open the backends without faults, for the audit."""
    os.environ.update({**ENV, **env})  # noqa: TID251 - this process is a client of the run's own
    settings = load(DarkroomSettings)
    return open_backends(settings, load_catalog(settings.catalog))


def _summary(
    run: Run, verdict: Verdict, dead: set[str], records: Mapping[str, Job]
) -> dict[str, Any]:
    states = collections.Counter(job.status.value for job in records.values())
    attempts = collections.Counter(job.attempts for job in records.values())
    _table("ended as", states)
    _table("attempts", {str(number): attempts[number] for number in sorted(attempts)})
    _table("faults injected", {name: run.faults[name] for name in sorted(run.faults)})
    print(f"\nprocesses that ended by themselves and were started again: {run.restarts}")
    for name, ids in vars(verdict).items():
        for job_id in sorted(ids)[:5]:
            print(f"{name}: {records.get(job_id, job_id)!r:.300}")
    return {
        "jobs": len(run.job_ids),
        "lost": len(verdict.lost) + run.count - len(run.job_ids),
        "doubled": len(verdict.doubled),
        "wrong": len(verdict.wrong),
        "poison_sent": len(run.poison),
        "poison_dead_lettered": len(dead & run.poison),
        "others_dead_lettered": len(dead - run.poison),
        "faults": dict(run.faults),
    }


def _table(title: str, rows: Mapping[str, int]) -> None:
    print(f"\n{title}")
    for name, number in rows.items():
        print(f"  {name:24} {number:6}")


def is_sound(summary: Mapping[str, Any]) -> bool:
    """Whether nothing was lost, doubled or wrong and exactly the poison is dead-lettered."""
    none = ("lost", "doubled", "wrong", "others_dead_lettered")
    all_poison = summary["poison_dead_lettered"] == summary["poison_sent"]
    return all_poison and not any(summary[name] for name in none)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", choices=("embedded", "azure"), default="embedded")
    parser.add_argument("--keep", type=Path, help="folder for logs and data, kept afterwards")
    asked = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        summary = asyncio.run(run_chaos(asked.jobs, asked.seed, asked.backend, folder))
    print(f"\n{time.monotonic() - started:.0f} s\n{json.dumps(summary)}")
    return 0 if is_sound(summary) else 1


if __name__ == "__main__":
    sys.exit(main())
