"""What KEDA asks Prometheus: how many workers are busy, not how many jobs run."""

import pytest

from tests.charts import helm
from tests.charts.observability import recorded
from tests.charts.observability.prometheus import Prometheus

AT = recorded.START + 6600


def query(pool: str) -> tuple[str, dict[str, str]]:
    """The query that the chart renders for a pool, and its trigger's metadata."""
    objects = helm.render("darkroom", scenario="minimal")
    (metadata,) = (
        trigger["metadata"]
        for one in helm.of_kind(objects, "ScaledObject")
        for trigger in one["spec"]["triggers"]
        if trigger["type"] == "prometheus"
        and one["spec"]["scaleTargetRef"]["name"].endswith(f"-{pool}")
    )
    return metadata["query"], metadata


@pytest.mark.parametrize(("pool", "busy"), [("short", 1), ("long", 0)])
def test_a_worker_that_runs_three_jobs_is_one_busy_worker(
    server: Prometheus, pool: str, busy: int
) -> None:
    assert server.value(query(pool)[0], AT) == busy


def test_no_workers_at_all_is_no_error(server: Prometheus) -> None:
    """An empty answer has to count as 0: as an error it would keep a worker up for ever."""
    text, metadata = query("short")
    assert server.instant(text.replace('pool="short"', 'pool="asleep"'), AT) == []
    assert metadata["ignoreNullValues"] == "true"
