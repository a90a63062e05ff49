"""Draws the chart of each group of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness import Table
from plots import FLOOR, OURS, OURS_TOO, PEER, Bars, Lines, bar_chart, line_chart
from results import Group


def _colour(row: str, base: str) -> str:
    if row == base:
        return OURS
    if row.startswith("raccoon_fast"):
        return OURS_TOO
    return FLOOR if row in ("memcpy", "sendall (floor)") else PEER


def _blocks(tables: Iterable[Table], columns: int = 1) -> list[Bars]:
    """One block of bars per table and column."""
    return [
        Bars(
            f"{table.title}: {column}",
            [
                (row, cells[column].median, _colour(row, table.base))
                for row, cells in table.cells.items()
                if column in cells
            ],
        )
        for table in tables
        for column in table.columns[:columns]
    ]


def _cpu(group: Group) -> list[Table]:
    return [table for table in group.tables if "CPU" in table.unit]


def _bars(title: str, columns: int = 1) -> Callable[[Group], str]:
    return lambda group: bar_chart(title, _cpu(group)[0].unit, _blocks(_cpu(group), columns))


def _envelope(group: Group) -> str:
    first = {table.title.split()[0]: table for table in reversed(_cpu(group))}
    return bar_chart("Encoding a request of 1,000 events", "ns of CPU per event", _blocks(reversed([*first.values()])))


def _latency(group: Group) -> str:
    panels = []
    for table in group.tables:
        series = {
            name: [(float(rate.replace(",", "")), cells[name].median) for rate, cells in table.cells.items()]
            for name in ("p50", "p99", "p99.9")
        }
        panels.append(Lines(table.title.split(",")[0], "events/s", "ms", series, log_y=True))
    return line_chart("From emit to acknowledgement, linger 5 ms", "ms, 200 B events", panels)


def _scale(group: Group) -> str:
    panels = []
    for table in group.tables:
        points = [
            (float(size.replace(",", "")), cells["CPU, ns per event"].median) for size, cells in table.cells.items()
        ]
        panels.append(Lines(table.title, table.rows, "ns of CPU per event", {"CPU": points}))
    return line_chart("CPU per event as the load grows", "WebSocket, 200 B x 1,000", panels)


def _distance(group: Group) -> str:
    panels = []
    for table in group.tables:
        if not table.is_detail:
            series = {
                way: [(float(row), cells[way].median) for row, cells in table.cells.items()] for way in table.columns
            }
            panels.append(Lines(table.title.split(",")[0], "round trip, ms", "events/s", series, log_x=False))
    return line_chart("Events per second to a distant server", "events/s, 200 B x 1,000", panels)


def _memory(group: Group) -> str:
    series = {
        transport: [(float(millions), spread.median) for millions, spread in cells.items()]
        for table in group.tables
        if table.title.startswith("Resident")
        for transport, cells in table.cells.items()
    }
    panel = Lines("", "millions of events sent", "MiB resident", series, log_x=False)
    return line_chart("Resident memory over ten million events", "MiB", [panel], in_a_row=1)


CHARTS: dict[str, Callable[[Group], str]] = {
    "envelope": _envelope,
    "acks": _bars("Decoding an answer and resolving its future", 2),
    "emit": _bars("Calls of emit: CPU of the calling thread", 3),
    "transports": _bars("From event to acknowledgement: CPU of the client"),
    "latency": _latency,
    "interference": lambda group: bar_chart(
        "From emit to acknowledgement, in a program that computes",
        "ms",
        _blocks((table for table in group.tables if table.unit == "ms"), 2),
    ),
    "scale": _scale,
    "distance": _distance,
    "columns": _bars("From table row to acknowledgement: CPU of the client"),
    "memory": _memory,
    "ingest": lambda group: bar_chart(
        "Events per second that the collector receives", "events/s", _blocks(group.tables)
    ),
}
