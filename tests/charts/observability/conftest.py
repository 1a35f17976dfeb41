"""One Prometheus for all tests of this folder: it costs seconds to fill and start."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from darkroom.metrics import WorkerMetrics
from tests.charts.observability import recorded
from tests.charts.observability.prometheus import Prometheus, prometheus
from tests.charts.observability.rendering import only, scenario


class _Exporter(BaseHTTPRequestHandler):
    """Serves DCGM's metrics of one moment, as its exporter does."""

    body: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def dcgm_port() -> Iterator[int]:
    lines = [recorded.line(*one, 1).rsplit(" ", 1)[0] for one in recorded.devices(1)]
    handler = type("Exporter", (_Exporter,), {"body": "\n".join([*lines, ""]).encode()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="session")
def worker_port() -> Iterator[int]:
    metrics = WorkerMetrics(CollectorRegistry())
    metrics.jobs_in_flight.labels("short").set(1)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=metrics.registry)
    yield server.server_port
    server.shutdown()
    thread.join()


def scrape_config(job: str, port: int, monitor: dict[str, Any]) -> dict[str, Any]:
    """What the rendered monitor asks for, as Prometheus itself spells it."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    spelled = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    relabel = [
        {spelled.get(key, key): value for key, value in rule.items()}
        for rule in endpoint.get("metricRelabelings", [])
    ]
    return {
        "job_name": job,
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "metrics_path": endpoint["path"],
        "honor_labels": endpoint.get("honorLabels", False),
        "metric_relabel_configs": relabel,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"pod": "scraped"}}],
    }


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, dcgm_port: int, worker_port: int
) -> Iterator[Prometheus]:
    """A Prometheus with the recording, which also scrapes as the rendered monitors say."""
    objects = scenario("default")
    scrape = [
        scrape_config("dcgm", dcgm_port, only(objects, "PodMonitor", "-exporter")),
        scrape_config("worker", worker_port, only(objects, "PodMonitor", "-darkroom")),
    ]
    with prometheus(tmp_path_factory.mktemp("prometheus"), scrape) as running:
        yield running
