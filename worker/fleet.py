"""The workers of one machine as one to probes and Prometheus: the supervisor's port stands for all.

Each worker serves a port of its own on the loopback address; what is asked here is asked of them.
Their series are passed on with one label more, ``worker``: the number of the process, from 0.
"""

import http.client
from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

HOST = "127.0.0.1"
ANSWER_SECONDS = 2.0
LABEL = "worker"


class Fleet(Collector):
    """What the workers on ``ports`` say of themselves. Used from the health server's threads."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports

    def why_dead(self) -> str | None:
        """Return what a worker says that hangs; one that is not there is being started again."""
        for number, port in enumerate(self._ports):
            status, body = _ask(port, "/livez")
            if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                return f"worker {number}: {body.strip()}"
        return None

    def why_unready(self) -> str | None:
        """Return why the first worker is not ready that is not; None when all are."""
        for number, port in enumerate(self._ports):
            status, body = _ask(port, "/readyz")
            if status != http.HTTPStatus.OK:
                return f"worker {number}: {body.strip()}"
        return None

    def collect(self) -> Iterator[Metric]:
        """Yield every worker's series; a worker that is not there has none."""
        families: dict[str, Metric] = {}
        for number, port in enumerate(self._ports):
            status, body = _ask(port, "/metrics")
            if status != http.HTTPStatus.OK:
                continue
            for family in text_string_to_metric_families(body):
                ours = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, LABEL: str(number)}
                    ours.add_sample(sample.name, labels, sample.value)
        yield from families.values()


def _ask(port: int, path: str) -> tuple[int, str]:
    """Return status and body; status 0 when nothing answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, "does not answer"
    finally:
        connection.close()
