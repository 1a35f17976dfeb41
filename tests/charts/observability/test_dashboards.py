"""The dashboards show what they say: every query runs on a real Prometheus and finds data."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from prometheus_client import CollectorRegistry

from darkroom import metrics as catalogue
from tests.charts.observability import recorded
from tests.charts.observability.prometheus import Prometheus
from tests.charts.observability.rendering import CHART, scenario

Json = dict[str, Any]
BOARDS = {path.stem: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
RANGE_SECONDS = 3600
AT = recorded.START + 6600


def panels(board: str) -> Iterator[Json]:
    yield from (panel for panel in BOARDS[board]["panels"] if panel["type"] != "row")


def queries() -> list[tuple[str, str, Json]]:
    return [
        (board, panel["title"], target)
        for board in BOARDS
        for panel in panels(board)
        for target in panel["targets"]
    ]


def asked(expr: str, pool: str = ".*", model: str = ".*", device: str = ".*") -> str:
    """An expression as Grafana sends it, with everything chosen."""
    filled = {"$pool": pool, "$model": model, "$device": device}
    filled |= {"$__rate_interval": "5m", "$__range": f"{RANGE_SECONDS}s"}
    for name, value in filled.items():
        expr = expr.replace(name, value)
    assert "$_" not in expr
    return expr


def target(board: str, title: str, number: int = 0) -> str:
    (found,) = [panel for panel in panels(board) if panel["title"] == title]
    return asked(found["targets"][number]["expr"])


def series_in(expr: str) -> set[str]:
    """The names of the series that an expression reads."""
    names: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name)
        for child in ("expr", "lhs", "rhs", "param", "vector_selector", "vs"):
            if (below := getattr(node, child, None)) is not None:
                visit(below)
        for below in getattr(node, "args", ()) or ():
            visit(below)

    visit(promql_parser.parse(expr))
    return names


def darkroom_series() -> set[str]:
    names = set()
    for kind in (catalogue.ApiMetrics, catalogue.WorkerMetrics, catalogue.WebhookMetrics):
        for family in kind(CollectorRegistry()).registry.collect():
            ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
            names |= {family.name + end for end in ends.get(family.type, ("",))}
    return names


def dcgm_series() -> set[str]:
    lines = (CHART / "files" / "dcgm-counters.csv").read_text().splitlines()
    return {line.split(",")[0] for line in lines if line.startswith("DCGM_")}


def test_the_committed_files_are_what_the_generator_writes() -> None:
    script = CHART / "dashboards" / "generate.py"
    run = subprocess.run(
        [sys.executable, "-B", script, "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_is_laid_out_without_overlap(board: str) -> None:
    every = BOARDS[board]["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in every
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


@pytest.mark.parametrize("board", BOARDS)
def test_every_panel_says_what_it_is_for(board: str) -> None:
    for panel in panels(board):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_every_query_reads_only_series_that_something_exports() -> None:
    known = darkroom_series() | dcgm_series()
    for board, title, one in queries():
        names = series_in(asked(one["expr"]))
        assert names, title
        assert names <= known, (board, title, names - known)
    for board in BOARDS.values():
        for variable in board["templating"]["list"][1:]:
            name, label = variable["definition"].removeprefix("label_values(")[:-1].split(", ")
            assert name in known, variable["name"]
            assert label


@pytest.mark.parametrize(("board", "title", "one"), queries())
def test_every_query_finds_data_on_a_real_prometheus(
    server: Prometheus, board: str, title: str, one: Json
) -> None:
    expr = asked(one["expr"])
    if one["instant"]:
        found = [series["value"][1] for series in server.instant(expr, AT)]
    else:
        ranged = server.range(expr, AT - 600, AT, 60)
        found = [value for series in ranged for _, value in series["values"]]
    assert found, f"{board}: {title} is empty"
    assert {value for value in found if value != "NaN"}, f"{board}: {title} is not a number"


@pytest.mark.parametrize(
    ("board", "title", "expected"),
    [
        ("gpu", "Devices", 3),
        ("gpu", "Fullest memory", 60 / 80),
        ("gpu", "Utilisation", (0.8 + 0.0 + 0.1) / 3),
        ("gpu", "Hottest", 70),
        ("gpu", "Power of all", 3 * 80 + 300 * 0.9),
        ("gpu", "Devices with an XID error", 1),
    ],
)
def test_the_numbers_of_now_are_right(
    server: Prometheus, board: str, title: str, expected: float
) -> None:
    assert server.value(target(board, title), AT) == pytest.approx(expected)


def test_a_device_is_named_by_its_node_whatever_the_exporter_calls_it(server: Prometheus) -> None:
    for title in ("Utilisation by device", "Memory pressure", "Temperature", "XID errors"):
        nodes = {one["metric"]["node"] for one in server.instant(target("gpu", title), AT)}
        assert nodes == {"gpu-old", "gpu-new", "gpu-mig"}, title


def test_a_mig_instance_has_a_line_of_its_own(server: Prometheus) -> None:
    found = server.instant(target("gpu", "Utilisation by device"), AT)
    instances = [one for one in found if one["metric"].get("GPU_I_ID")]
    assert [one["metric"]["GPU_I_PROFILE"] for one in instances] == ["3g.40gb"]
    assert len(found) == 3


def test_a_gpu_belongs_to_the_pool_whose_worker_holds_it(server: Prometheus) -> None:
    found = server.instant(target("gpu", "Utilisation by pool"), AT)
    by_pool = {one["metric"]["pool"]: float(one["value"][1]) for one in found}
    assert by_pool == pytest.approx({"short": (0.8 + 0.1) / 2, "long": 0.0})


def test_what_could_be_saved_is_the_price_of_workers_that_hold_no_job(server: Prometheus) -> None:
    hours = RANGE_SECONDS / 3600
    for title, short in (("Spent on workers", 2), ("Could be saved", 1)):
        found = server.instant(target("jobs", title), AT)
        by_pool = {one["metric"]["pool"]: float(one["value"][1]) for one in found}
        expected = {"short": short * recorded.PRICE_SHORT * hours, "long": recorded.PRICE_LONG}
        assert by_pool == pytest.approx(expected, rel=0.02), title


def test_depth_is_not_added_up_over_api_replicas(server: Prometheus) -> None:
    found = server.instant(target("jobs", "Queue depth"), AT)
    depths = {(one["metric"]["pool"], one["metric"]["state"]): one["value"][1] for one in found}
    assert depths["short", "active"] == "7"
    assert "webhooks" not in {pool for pool, _ in depths}


def test_failures_and_latency_are_as_they_were(server: Prometheus) -> None:
    assert server.value(target("jobs", "Failures by model"), AT) == pytest.approx(0.2)
    p95 = server.value(target("jobs", "Latency by model", 1), AT)
    assert 10 < p95 <= 30  # the bucket that holds 25 s
    dispatch = server.value(target("jobs", "Dispatch latency", 1), AT)
    assert 2.5 < dispatch <= 5


def test_a_live_scrape_by_the_rendered_monitors_gives_the_same_labels(server: Prometheus) -> None:
    deadline = time.monotonic() + 30
    while len(server.instant("up == 1")) < 2:
        assert time.monotonic() < deadline, server.instant("up")
        time.sleep(0.1)
    (mine,) = server.instant("darkroom_jobs_in_flight")
    assert mine["metric"]["pod"] == "scraped"
    found = server.instant("DCGM_FI_DEV_FB_USED")
    assert {one["metric"]["hostname"] for one in found} == {"gpu-old", "gpu-new", "gpu-mig"}
    assert not any("Hostname" in one["metric"] for one in found)
    # The pod that holds the device, not the exporter's.
    assert {one["metric"]["pod"] for one in found} == {
        "darkroom-short-0",
        "darkroom-long-0",
        "darkroom-short-1",
    }


def test_a_config_map_holds_each_committed_dashboard_unchanged() -> None:
    objects = scenario("default")
    rendered = {
        file: json.loads(text)
        for one in objects
        if one["kind"] == "ConfigMap" and one["metadata"]["labels"].get("grafana_dashboard") == "1"
        for file, text in one["data"].items()
    }
    assert rendered == {f"{name}.json": board for name, board in BOARDS.items()}
    for text in rendered.values():
        assert len(json.dumps(text)) < 900_000  # a ConfigMap holds 1 MiB
