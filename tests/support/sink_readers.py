"""What sinks have sent, read as whoever gets it reads it."""

from __future__ import annotations

import socket
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def lines_of(receiver: socket.socket) -> list[str]:
    """What has arrived: a datagram over loopback is there once it was sent."""
    receiver.setblocking(False)
    lines: list[str] = []
    try:
        while True:
            lines += receiver.recv(65536).decode().splitlines()
    except BlockingIOError:
        return lines


def points(reader: InMemoryMetricReader, **wanted: str) -> dict[str, Any]:
    """What an exporter gets, by name after "raccoon_fast.": the value of a counter or gauge, the sum of a histogram."""
    data = reader.get_metrics_data()
    metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
    found: dict[str, Any] = {}
    for metric in metrics:
        for point in metric.data.data_points:
            if wanted.items() <= dict(point.attributes).items():
                name = metric.name.removeprefix("raccoon_fast.")
                found[name] = point.sum if hasattr(point, "sum") else point.value
    return found
