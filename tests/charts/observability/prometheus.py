"""A real Prometheus on a free loopback port, over a recording and over live targets."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.charts.observability import recorded

READY_SECONDS = 60


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def instant(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the series of a query, at a time or now. Fails on an error of the query."""
        asked = {"query": query} | ({} if at is None else {"time": str(at)})
        return self._ask("query", asked)

    def range(self, query: str, start: float, end: float, step: int) -> list[dict[str, Any]]:
        """Return the series of a query over a time."""
        asked = {"query": query, "start": str(start), "end": str(end), "step": str(step)}
        return self._ask("query_range", asked)

    def value(self, query: str, at: float) -> float:
        """Return the value of a query that has one series."""
        (one,) = self.instant(query, at)
        return float(one["value"][1])

    def _ask(self, path: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        url = f"{self.url}/api/v1/{path}"
        try:
            with urllib.request.urlopen(url, urllib.parse.urlencode(asked).encode()) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return result
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{asked['query']}: {error.read().decode()}") from error


@contextmanager
def prometheus(folder: Path, scrape: list[dict[str, Any]]) -> Iterator[Prometheus]:
    """Serve the recording, and what ``scrape`` configures, until the block ends."""
    data = folder / "data"
    recording = folder / "recorded.txt"
    recording.write_text(recorded.text())
    create = ["promtool", "tsdb", "create-blocks-from", "openmetrics", recording, data]
    subprocess.run(create, check=True, capture_output=True)
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"scrape_configs": scrape}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                "--storage.tsdb.retention.time=50y",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(f"http://{address}/-/ready", server)
        yield Prometheus(f"http://{address}")
    finally:
        server.terminate()
        server.wait(READY_SECONDS)


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, "prometheus ended at its start"
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("prometheus was not ready in time")
