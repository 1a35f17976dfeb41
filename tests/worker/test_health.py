"""Probes and metrics on one port."""

import asyncio
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from darkroom.errors import SettingsError
from darkroom.metrics import WorkerMetrics
from emulators.processes import free_port
from tests.worker.probing import get
from tests.worker.processes import Machine
from tests.worker.site import POOL, eventually
from worker.health import LOOP_SILENT_SECONDS, Health, served


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Served:
    """A health server, and what it is told."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.clock = Clock()
        self.draining = False
        self.engine_silent_seconds = 0.0
        self.metrics = WorkerMetrics(CollectorRegistry())
        self.health = Health(lambda: self.draining, self.clock)

    def get(self, path: str) -> tuple[int, str]:
        return get(self.url + path)


@pytest.fixture
def running() -> Iterator[Served]:
    port = free_port()
    one = Served(port)
    with served(one.health, one.metrics.registry, "127.0.0.1", port):
        yield one


def test_a_worker_is_alive_from_the_start_and_ready_when_warm(running: Served) -> None:
    assert running.get("/livez") == (200, "ok\n")
    assert running.get("/readyz") == (503, "warming up\n")
    running.health.warm()
    assert running.get("/readyz?verbose") == (200, "ok\n")
    running.draining = True
    assert running.get("/readyz") == (503, "draining\n")
    assert running.get("/livez") == (200, "ok\n")
    assert running.get("/else")[0] == 404


def test_an_event_loop_that_hangs_is_told_of(running: Served) -> None:
    running.health.warm()
    running.clock.now = LOOP_SILENT_SECONDS
    assert running.get("/livez")[0] == 200
    running.clock.now += 1
    hangs = (503, "the event loop hangs\n")
    assert (running.get("/livez"), running.get("/readyz")) == (hangs, hangs)
    running.health.beat()
    assert running.get("/livez")[0] == 200


def test_an_engine_that_shows_no_sign_of_life_is_told_of(running: Served) -> None:
    running.health.watch_engine(lambda: running.engine_silent_seconds, 600)
    running.engine_silent_seconds = 600
    assert running.get("/livez")[0] == 200
    running.engine_silent_seconds = 601
    assert running.get("/livez") == (503, "the engine hangs\n")


def test_metrics_are_served_in_both_of_prometheus_forms(running: Served) -> None:
    running.metrics.worker_info.labels("short", "cpu", "", "1").set(1)
    status, text = running.get("/metrics")
    assert status == 200
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"darkroom_worker_info", "darkroom_gpu_seconds"} <= families
    request = urllib.request.Request(
        f"{running.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")


def test_a_client_that_says_nothing_keeps_no_other_waiting(running: Served) -> None:
    port = int(running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        assert running.get("/livez") == (200, "ok\n")


def test_a_port_that_is_taken_is_refused_by_name() -> None:
    health = Health(lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(SettingsError, match="DARKROOM_WORKER_METRICS_PORT"),
            served(health, CollectorRegistry(), "127.0.0.1", port),
        ):
            pass


async def test_the_loop_beats_while_it_turns() -> None:
    clock = Clock()
    health = Health(lambda: False, clock)
    clock.now = 1000.0
    beating = asyncio.create_task(health.keep_beating())
    await asyncio.sleep(0)
    assert health.why_dead() is None
    beating.cancel()


async def test_a_worker_process_is_ready_when_it_leases_and_unready_when_it_leaves(
    tmp_path: Path,
) -> None:
    machine, port = Machine(tmp_path), free_port()
    url = f"http://127.0.0.1:{port}"
    async with machine.worker(metrics_port=port, fake_step_seconds=0.05) as worker:
        await worker.logged("ready")
        assert await asyncio.to_thread(get, f"{url}/readyz") == (200, "ok\n")
        assert await asyncio.to_thread(get, f"{url}/livez") == (200, "ok\n")
        _, text = await asyncio.to_thread(get, f"{url}/metrics")
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
    told = f'darkroom_worker_info{{device="fake",gpu="",pool="{POOL}",version='
    assert told in text


async def test_a_worker_whose_model_is_missing_ends_and_never_was_ready(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "weights").rmdir()
    async with machine.worker() as worker:
        assert await worker.exit_code() == 1
    assert not any(line["event"] == "ready" for line in worker.events)
    assert any("there is no weights beside the catalog" in line["event"] for line in worker.events)


async def test_a_worker_told_to_leave_while_it_warms_up_leaves(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    slow = {"warm_steps": 50, "fake_step_seconds": 0.2}
    async with machine.worker(**slow) as worker:
        await asyncio.sleep(0)

        async def started() -> bool:
            return (tmp_path / "jobs.db").exists()

        await eventually(started, seconds=30)
        await asyncio.sleep(0.5)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code(seconds=5) == 0
    events = {line["event"] for line in worker.events}
    assert "drain_begun" in events
    assert "ready" not in events
