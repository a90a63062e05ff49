"""Reads the output of metrics sinks as its receivers do."""

from __future__ import annotations

import socket
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def lines_of(receiver: socket.socket) -> list[str]:
    """The lines that have arrived; over loopback a datagram arrives as soon as it is sent."""
    receiver.setblocking(False)
    lines: list[str] = []
    try:
        while True:
            lines += receiver.recv(65536).decode().splitlines()
    except BlockingIOError:
        return lines


def points(reader: InMemoryMetricReader, **wanted: str) -> dict[str, Any]:
    """What an exporter gets, by name without "raccoon_fast.": a counter's or gauge's value, a histogram's sum."""
    data = reader.get_metrics_data()
    metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
    found: dict[str, Any] = {}
    for metric in metrics:
        for point in metric.data.data_points:
            if wanted.items() <= dict(point.attributes).items():
                name = metric.name.removeprefix("raccoon_fast.")
                found[name] = point.sum if hasattr(point, "sum") else point.value
    return found
