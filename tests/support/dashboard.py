"""Draws the Grafana dashboard without Grafana, by sending its queries to a Prometheus."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_server import PrometheusServer

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "raccoon_fast.json"
_STEP_S = 0.25


class Query(NamedTuple):
    """One query of a panel, with the name of its lines."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One panel of the dashboard."""

    title: str
    unit: str
    queries: tuple[Query, ...]


def panels() -> list[Panel]:
    """All panels in order; the dashboard's variables have the value "all"."""
    found = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [
        Panel(
            one["title"],
            one["fieldConfig"]["defaults"]["unit"],
            tuple(Query(_chosen(target["expr"]), target["legendFormat"]) for target in one["targets"]),
        )
        for one in found
        if one["type"] != "row"
    ]


def _chosen(expression: str) -> str:
    for name in ("job", "instance", "lane"):
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", "2s").replace("$__range", "5m")


def series_of(server: PrometheusServer, panel: Panel, began_s: float, ended_s: float) -> dict[str, list[Any]]:
    """The (seconds, value) points of each line, by legend; lines without points are left out."""
    found: dict[str, list[Any]] = {}
    for query in panel.queries:
        for labels, values in server.range(query.expression, began_s, ended_s, _STEP_S):
            legend = query.legend
            for name, value in labels.items():
                legend = legend.replace(f"{{{{{name}}}}}", value)
            points = [(at_s - began_s, float(value)) for at_s, value in values if value != "NaN"]
            if points:
                found[legend] = points
    return found


def draw(drawn: dict[Panel, dict[str, list[Any]]]) -> str:
    """Draw all panels as one SVG picture."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from plots import Lines, line_chart
    finally:
        sys.path.pop(0)
    lines = [
        Lines(panel.title, "s", panel.unit, series, log_x=False, marks=False)
        for panel, series in drawn.items()
        if series
    ]
    return line_chart("raccoon_fast producers", "from a real Prometheus", lines)
