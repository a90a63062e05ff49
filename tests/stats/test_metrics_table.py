"""The documentation's table of metrics lists exactly what sinks report."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from patience import wait_until
from prometheus_client import CollectorRegistry
from sink_readers import lines_of, points

from raccoon_fast import RAW, OpenTelemetry, Producer, Prometheus, RetryPolicy, StatsD
from raccoon_fast.collector import Collector
from raccoon_fast.stats.ledger import LEDGER
from raccoon_fast.stats.sink import COUNTERS, TIMINGS

QUICK = RetryPolicy(initial=0.01, maximum=0.05)
OPTIONS: dict[str, Any] = {"serializer": RAW, "logger": None, "linger": 0.001, "retry": QUICK}
PAGE = Path(__file__).parents[2] / "docs" / "pages" / "metrics.md"


def documented() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Name, name in Prometheus, kind and labels of each row."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| `(\w+)` \| (\w+) \| (.*?) ?\|", text, re.MULTILINE)
    return [(name, prom, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, prom, kind, labels in rows]


def test_the_table_has_the_ledger_s_metrics() -> None:
    rows = documented()
    assert [(name, kind, labels) for name, _, kind, labels in rows[5:]] == [
        (one.name, one.kind, one.labels) for one in LEDGER
    ]
    assert {name for name, *_ in rows[:5]} == {*TIMINGS, *COUNTERS}


def test_prometheus_has_what_the_table_says(collector: Collector, registry: CollectorRegistry) -> None:
    kinds = {"timing": "histogram"}
    expected = {prom: (kinds.get(kind, kind), {*labels}) for _, prom, kind, labels in documented()}
    found: dict[str, tuple[str, set[str]]] = {}

    def is_all_there() -> bool:
        for family in registry.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, labels)
        return found == expected

    with (
        Prometheus(registry, flush_interval=0.01) as stats,
        Producer(collector.url, **OPTIONS, stats=stats) as producer,
    ):
        producer.emit_many([("page", b"x")] * 10)
        producer.flush()
        with contextlib.suppress(AssertionError):  # which says less than the next line
            wait_until(is_all_there)
        assert found == expected


def let_all_happen(stats: Any, collector: Collector, unused_port: int) -> None:
    """Some events are acknowledged, some are dropped, some wait for a server that is not there and fail."""
    with Producer(collector.url, **OPTIONS, stats=stats) as producer:
        producer.emit_many([("page", b"x")] * 10)
        assert producer.flush() == 0
    with Producer(
        f"http://127.0.0.1:{unused_port}", **OPTIONS, stats=stats, overflow="drop_newest", buffer_bytes=1 << 21
    ) as lost:
        lost.emit_many([("page", b"x" * 1000)] * 3000)
        wait_until(lambda: lost.stats().retries > 0)
        lost.close(0)


def test_statsd_sends_what_the_table_says(collector: Collector, unused_port: int) -> None:
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(("127.0.0.1", 0))

        def look() -> dict[str, Any]:
            for line in lines_of(receiver):
                name, kind, tags = re.fullmatch(r"([\w.]+):[\d.]+\|(\w+)(?:\|#(.+))?", line).groups()
                found[name] = (kind, tuple(tag.partition(":")[0] for tag in (tags or "").split(",") if tag))
            return found

        with StatsD("127.0.0.1", receiver.getsockname()[1], flush_interval=0.01) as stats:
            with Producer(collector.url, **OPTIONS, stats=stats) as producer:
                producer.emit("page", b"x")
                wait_until(lambda: "endpoint_up" in look())  # a gauge is sent as long as its producer is there
            let_all_happen(stats, collector, unused_port)
        look()
    letters = {"timing": "ms", "histogram": "ms", "counter": "c", "gauge": "g"}
    assert found == {name: (letters[kind], labels) for name, _, kind, labels in documented()}


def test_opentelemetry_has_what_the_table_says(collector: Collector, unused_port: int) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    found: dict[str, tuple[str, set[str]]] = {}

    def look() -> None:
        data = reader.get_metrics_data()
        for metric in [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics:
            kind = {"Sum": "counter", "Gauge": "gauge", "Histogram": "histogram"}[type(metric.data).__name__]
            found[metric.name] = (kind, {name for point in metric.data.data_points for name in point.attributes})

    with OpenTelemetry(provider, flush_interval=0.01) as stats:
        with Producer(collector.url, **OPTIONS, stats=stats) as producer:
            producer.emit("page", b"x")
            wait_until(lambda: "endpoint_up" in points(reader))
            look()  # a gauge is there as long as its producer is
        let_all_happen(stats, collector, unused_port)
    look()
    kinds = {"timing": "histogram"}
    expected = {name: (kinds.get(kind, kind), {*labels}) for name, _, kind, labels in documented()}
    assert found == {f"raccoon_fast.{name}": what for name, what in expected.items()}
    provider.shutdown()
