"""Grafana's panels as plain values: enough of its JSON for these dashboards, and no more."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


@dataclass(frozen=True)
class Query:
    """One PromQL expression and what its series are called. ``instant`` asks for the last value."""

    expr: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel. ``unit`` is Grafana's name of a unit; ``thresholds`` are (from, colour) steps."""

    title: str
    why: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 12
    height: int = 8
    top: float | None = None
    stacked: bool = False
    thresholds: Sequence[tuple[float, str]] = field(default=())


@dataclass(frozen=True)
class Row:
    """A heading and the panels under it, filled from the left."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A choice above the dashboard: the values of a label of one series, several or all."""

    name: str
    series: str
    label: str


def dashboard(
    uid: str, title: str, about: str, variables: Sequence[Variable], rows: Sequence[Row]
) -> Json:
    """Return the JSON of a dashboard; the same input always gives the same text."""
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["darkroom"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), *(_variable(one) for one in variables)]},
        "annotations": {"list": []},
        "panels": _laid_out(rows),
    }


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "refresh": 1,
    }


def _variable(one: Variable) -> Json:
    query = f"label_values({one.series}, {one.label})"
    return {
        "name": one.name,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": one.name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for row in rows:
        head = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        placed.append({**head, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, tallest = y + tallest, 0, 0
            at = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            placed.append({**_panel(panel), "gridPos": at})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return [{"id": number, **panel} for number, panel in enumerate(placed, 1)]


def _panel(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0}
    if panel.top is not None:
        defaults["max"] = panel.top
    if panel.thresholds:
        steps = [{"color": colour, "value": start} for start, colour in panel.thresholds]
        first = {"color": "green", "value": None}
        defaults["thresholds"] = {"mode": "absolute", "steps": [first, *steps]}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "showPoints": "never",
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.why,
        "datasource": SOURCE,
        "targets": [
            _target(letter, query) for letter, query in zip("ABCDEF", panel.queries, strict=False)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
    }


def _options(kind: str) -> Json:
    if kind == "timeseries":
        legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
    return {}


def _target(letter: str, query: Query) -> Json:
    return {
        "refId": letter,
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": query.instant,
        "range": not query.instant,
        "format": "time_series",
    }
