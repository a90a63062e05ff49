"""The ledger as metrics: producers' counts in each sink, and as scraped by a real Prometheus."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from patience import wait_until
from program import run
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_server import prometheus_server
from sink_readers import lines_of, points
from trial import port_of

from raccoon_fast import (
    RAW,
    AsyncProducer,
    DogStatsD,
    Measurement,
    OpenTelemetry,
    Producer,
    Prometheus,
    RetryPolicy,
    StatsD,
)
from raccoon_fast.collector import Collector
from raccoon_fast.stats.ledger import LEDGER
from raccoon_fast.stats.ledger_totals import LedgerTotals

if sys.version_info >= (3, 12):
    pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

QUICK = RetryPolicy(initial=0.01, maximum=0.05)
OPTIONS: dict[str, Any] = {"serializer": RAW, "logger": None, "linger": 0.001, "retry": QUICK}
# For tests that count batches: on a busy machine, a short linger would seal some before they have ten events.
FULL_BATCHES = {**OPTIONS, "batch_events": 10, "linger": 60}
SCHEMES = ("ws", "http", "grpc")


Value = Callable[..., float | None]


@pytest.fixture
def value(registry: CollectorRegistry) -> Value:
    """A sample's value, None where there is none; of the default lane, where it has a lane."""

    def value(name: str, **labels: str) -> float | None:
        found = registry.get_sample_value(f"raccoon_fast_{name}", {"lane": "default", **labels})
        return registry.get_sample_value(f"raccoon_fast_{name}", labels) if found is None else found

    return value


def test_a_scrape_shows_dropped_and_expired_events(tmp_path: Any, unused_port: int) -> None:
    """No server listens: some of the 200,000 events have no room, and the others expire."""
    registry = CollectorRegistry()
    http, thread = start_http_server(0, "127.0.0.1", registry)
    # A password in the URL must not be in any label.
    url = f"http://user:hunter2-secret@127.0.0.1:{unused_port}"
    try:
        with (
            prometheus_server(tmp_path, {"shop": f"127.0.0.1:{http.server_port}"}) as server,
            Prometheus(registry, flush_interval=0.05) as stats,
        ):
            server.wait_for("raccoon_fast_events_lost_total", 0.0)
            wait_until(lambda: len(server.query("raccoon_fast_events_lost_total")) == 1)
            options = {**OPTIONS, "stats": stats, "overflow": "drop_newest", "delivery_timeout": 2.0}
            with Producer(url, batch_bytes=1 << 16, buffer_bytes=1 << 18, **options) as producer:
                producer.emit_many([("page", b"x" * 30)] * 200_000)
                server.wait_for("raccoon_fast_endpoint_up", 0.0)
                server.wait_for("raccoon_fast_events_lost_total", 200_000.0)
                total = producer.stats().total
                assert 0 < total.expired < 200_000
                server.wait_for("raccoon_fast_events_expired_total", total.expired)
                server.wait_for('raccoon_fast_events_dropped_total{policy="drop_newest"}', total.dropped["drop_newest"])
                server.wait_for("raccoon_fast_events_accepted_total", 200_000.0)
                server.wait_for("raccoon_fast_events_queued", 0.0)
                # It began at zero, so that an alert on its growth sees all of it.
                assert server.value("increase(raccoon_fast_events_lost_total[5m])") > 190_000
            server.wait_for("count(raccoon_fast_endpoint_up) or vector(0)", 0.0)
            labels = [value for label in server.label_values("__name__") for value in [label]]
            labels += [text for name in ("address", "lane", "reason", "policy") for text in server.label_values(name)]
            assert f"http://127.0.0.1:{unused_port}/api/v1/events" in labels
            assert not [text for text in labels if "hunter2" in text or "user" in text]
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_metrics_exist_during_and_after_sending(
    collector: Collector, registry: CollectorRegistry, value: Value, scheme: str
) -> None:
    with Prometheus(registry, flush_interval=0.01) as stats:
        with Producer(f"{scheme}://127.0.0.1:{port_of(collector, scheme)}", **FULL_BATCHES, stats=stats) as producer:
            producer.emit_many([("page", b"x" * 100)] * 55)
            assert producer.flush() == 0
            wait_until(lambda: value("events_acked_total") == 55)
            wait_until(lambda: (value("connections") or 0) >= 1)
            address = f"{producer.health().servers[0].address}"
            assert value("endpoint_up", address=address) == 1
            assert value("buffer_limit_bytes") == 64 << 20
        wait_until(lambda: value("endpoint_up", address=address) is None)
    assert value("events_accepted_total") == value("events_acked_total") == 55
    assert value("events_lost_total") == 0
    assert value("batch_events_sum") == 55
    assert value("batch_events_count") == value("batch_bytes_count") == 6
    assert 55 * 100 < (value("batch_bytes_sum") or 0) < 55 * 200
    for gauge in ("events_queued", "events_in_flight", "buffered_bytes", "connections", "buffer_limit_bytes"):
        assert value(gauge) == 0, gauge


def test_an_async_producer_is_read_as_well(collector: Collector, registry: CollectorRegistry, value: Value) -> None:
    async def send() -> None:
        async with AsyncProducer(collector.ws_url, **OPTIONS, stats=stats) as producer:
            await producer.emit_many([("page", b"x")] * 20)
            await producer.flush()
            assert await asyncio.to_thread(lambda: wait_until(lambda: value("events_acked_total") == 20)) is None
            await producer.emit("page", b"x")

    with Prometheus(registry, flush_interval=0.01) as stats:
        asyncio.run(send())
    assert value("events_acked_total") == 21
    assert value("events_queued") == value("connections") == 0


def test_an_async_producer_left_open_is_freed_and_counted(
    unused_port: int, registry: CollectorRegistry, value: Value
) -> None:
    async def send() -> None:
        # No attempt is to begin while asyncio.run ends: its task would be destroyed.
        late = RetryPolicy(initial=60, maximum=60)
        producer = AsyncProducer(f"http://127.0.0.1:{unused_port}", **{**OPTIONS, "retry": late}, stats=stats)
        await producer.emit_many([("page", b"x")] * 20)
        while not producer.stats().retries:
            await asyncio.sleep(0.001)

    with Prometheus(registry, flush_interval=60) as stats:
        asyncio.run(send())
        gc.collect()
    assert value("events_accepted_total") == 20
    # More than 0 where an object keeps it still; less than 20 if the loop took a part of the events meanwhile.
    assert 0 <= (value("events_queued") or 0) <= 20


def test_waiting_events_and_retry_reasons_are_shown(
    unused_port: int, registry: CollectorRegistry, value: Value
) -> None:
    with (
        Prometheus(registry, flush_interval=0.01) as stats,
        Producer(f"ws://127.0.0.1:{unused_port}", **OPTIONS, stats=stats) as producer,
    ):
        producer.emit_many([("page", b"x" * 100)] * 50)
        wait_until(lambda: value("events_queued") == 50 or value("events_in_flight") == 50)
        wait_until(lambda: (value("retries_total", reason="ConnectError") or 0) >= 3)
        wait_until(lambda: value("endpoint_up", address=f"ws://127.0.0.1:{unused_port}/api/v1/events") == 0)
        assert 50 * 100 < (value("buffered_bytes") or 0) < 1 << 20
        assert producer.stats().retries >= 3
        producer.close(0)
    assert value("events_failed_total", reason="closed") == value("events_lost_total") == 50


def test_the_spool_is_counted_in_and_out(
    tmp_path: Any, unused_port: int, collector: Collector, registry: CollectorRegistry, value: Value
) -> None:
    spool = tmp_path / "spool"
    with Prometheus(registry, flush_interval=0.01) as stats:
        options = {**OPTIONS, "stats": stats, "spool": spool}
        with Producer(f"http://127.0.0.1:{unused_port}", delivery_timeout=0.1, **options) as producer:
            producer.emit_many([("page", b"x" * 100)] * 50)
            wait_until(lambda: value("events_in_spool") == 50)
            wait_until(lambda: (value("spool_bytes") or 0) > 50 * 100)
            assert value("events_spooled_total") >= 50
            assert value("events_lost_total") == 0
        with Producer(collector.url, **options) as producer:
            wait_until(lambda: value("events_acked_total") == 50)
            wait_until(lambda: value("events_in_spool") == value("spool_bytes") == 0)


def test_several_producers_are_added_up(collector: Collector, registry: CollectorRegistry, value: Value) -> None:
    with Prometheus(registry, flush_interval=0.01) as stats:
        one, other = (Producer(collector.url, **OPTIONS, stats=stats) for _ in range(2))
        one.emit_many([("page", b"x")] * 10)
        other.emit_many([("page", b"x")] * 5)
        one.close()
        wait_until(lambda: value("events_acked_total") == 15)
        assert value("endpoint_up", address=f"{collector.url}/api/v1/events") == 1
        other.emit_many([("page", b"x")] * 100)
        other.close()
        Producer(collector.url, **OPTIONS, stats=stats).close()
    assert value("events_accepted_total") == value("events_acked_total") == 115


def test_several_sinks_share_a_registry(collector: Collector, unused_port: int, registry: CollectorRegistry) -> None:
    def found(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"raccoon_fast_{name}", labels)

    sinks = [Prometheus(registry, labels={"to": name}, flush_interval=0.01) for name in ("a", "b", "a")]
    urls = [collector.url, f"http://127.0.0.1:{unused_port}", collector.url]
    producers = [Producer(url, **OPTIONS, stats=sink) for url, sink in zip(urls, sinks, strict=True)]
    for producer in producers:
        producer.emit_many([("page", b"x")] * 10)
    wait_until(lambda: found("events_acked_total", lane="default", to="a") == 20)
    wait_until(lambda: found("buffer_limit_bytes", lane="default", to="a") == 2 * (64 << 20))
    wait_until(lambda: found("events_accepted_total", lane="default", to="b") == 10)
    wait_until(lambda: found("endpoint_up", address=f"{urls[1]}/api/v1/events", to="b") == 0)
    producers[0].close()
    wait_until(lambda: found("buffer_limit_bytes", lane="default", to="a") == 64 << 20)
    assert found("endpoint_up", address=f"{urls[0]}/api/v1/events", to="a") == 1
    for producer in producers:
        producer.close(0)
    for sink in sinks:
        sink.close(5)
    assert found("endpoint_up", address=f"{urls[0]}/api/v1/events", to="a") is None
    assert found("events_lost_total", lane="default", to="b") == 10


def test_a_forked_child_begins_at_zero(collector: Collector, registry: CollectorRegistry, value: Value) -> None:
    stats = Prometheus(registry, flush_interval=0.01)
    producer = Producer(collector.url, **OPTIONS, stats=stats)
    producer.emit_many([("page", b"x")] * 50)
    wait_until(lambda: value("events_acked_total") == 50)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            producer.emit_many([("page", b"x")] * 7)
            producer.close()
            stats.close(5)
            counts = [value(f"{name}_total") for name in ("events_accepted", "events_acked", "events_lost")]
            status = int([*counts, value("batch_events_sum"), value("events_queued")] != [7, 7, 0, 7, 0])
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    producer.emit("page", b"x")
    producer.close()
    stats.close(5)
    assert value("events_accepted_total") == value("events_acked_total") == 51


def test_a_forked_child_begins_at_zero_for_opentelemetry(collector: Collector) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    stats = OpenTelemetry(provider, flush_interval=0.01)
    producer = Producer(collector.url, **OPTIONS, stats=stats)
    producer.emit_many([("page", b"x")] * 50)
    wait_until(lambda: points(reader).get("events.acked", 0) == 50)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            producer.emit_many([("page", b"x")] * 7)
            producer.close()
            stats.close(5)
            found = points(reader)
            status = int([found["events.accepted"], found["events.acked"], found["events.lost"]] != [7, 7, 0])
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    producer.close()
    stats.close(5)
    assert points(reader)["events.acked"] == 50
    provider.shutdown()


def test_workers_are_added_up_with_multiprocess_mode(tmp_path: Any) -> None:
    program = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        warnings.simplefilter("ignore", ResourceWarning)  # of files that prometheus_client leaves open
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess
        from raccoon_fast import RAW, Producer, Prometheus
        stats = Prometheus(flush_interval=0.01)
        producer = Producer(sys.argv[1], serializer=RAW, stats=stats, logger=None)
        producer.emit_many([("page", b"x")] * 10)
        producer.flush()
        for number in range(3):
            pid = os.fork()
            if pid == 0:
                producer.emit_many([("page", b"x")] * 100)
                producer.close()
                stats.close(5)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        producer.close()
        stats.close(5)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        print(generate_latest(registry).decode())
    """
    with Collector() as collector:
        out = run(re.sub(r"^ {8}", "", program, flags=re.MULTILINE), collector.url, PROMETHEUS_MULTIPROC_DIR=tmp_path)
    assert 'raccoon_fast_events_acked_total{lane="default"} 310.0' in out
    assert 'raccoon_fast_events_queued{lane="default"} 0.0' in out
    assert 'raccoon_fast_batch_events_sum{lane="default"} 310.0' in out
    assert any(re.fullmatch(r"raccoon_fast_endpoint_up\{.+\} [01]\.0", line) for line in out)


def test_a_producer_and_a_sink_left_open_deliver_their_last_values() -> None:
    """At the interpreter's exit: producers are closed first, then sinks."""
    program = """
import sys
from raccoon_fast import RAW, Producer, StatsD
stats = StatsD("127.0.0.1", int(sys.argv[2]), flush_interval=60)
producer = Producer(sys.argv[1], serializer=RAW, stats=stats, logger=None, linger=30)
producer.emit_many([("page", b"x")] * 10)
"""
    with Collector() as collector, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        run(program, collector.url, receiver.getsockname()[1])
        counted: dict[str, int] = {}
        for line in lines_of(receiver):
            if found := re.fullmatch(r"([\w.]+):(\d+)\|c\|#lane:default", line):
                counted[found[1]] = counted.get(found[1], 0) + int(found[2])
    assert counted["events.accepted"] == counted["events.acked"] == 10
    assert counted["events.lost"] == 0


@pytest.mark.parametrize(("sink", "kind"), [(StatsD, "ms"), (DogStatsD, "d")])
def test_statsd_gets_growth_gauges_and_samples(sink: type[StatsD], kind: str, collector: Collector) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        with (
            sink("127.0.0.1", receiver.getsockname()[1], tags={"env": "test"}, flush_interval=60) as stats,
            Producer(collector.url, **FULL_BATCHES, stats=stats) as producer,
        ):
            producer.emit_many([("page", b"x" * 100)] * 20)
            producer.flush()
        lines = lines_of(receiver)
    assert "events.acked:20|c|#env:test,lane:default" in lines
    assert lines.count("events.lost:0|c|#env:test,lane:default") == 1
    assert lines.count(f"batch.events:10|{kind}|#env:test,lane:default") == 2
    assert sum(line.startswith("total_bytes_sent:") and line.endswith("|c|#env:test") for line in lines) == 1


def test_counters_start_at_zero(unused_port: int) -> None:
    """They do not start an interval later: an immediate loss would otherwise be the first value of the counter."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        lines: list[str] = []
        with (
            StatsD("127.0.0.1", receiver.getsockname()[1], flush_interval=3600) as stats,
            Producer(f"http://127.0.0.1:{unused_port}", **OPTIONS, stats=stats) as producer,
        ):
            producer.emit("page", b"x")
            wait_until(lambda: lines.extend(lines_of(receiver)) or "events.lost:0|c|#lane:default" in lines)
            producer.close(0)


def test_statsd_s_gauges_are_taken_back(unused_port: int) -> None:
    """A daemon keeps each gauge: one that is no longer sent must not keep its last value."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        lines: list[str] = []

        def arrived(line: str) -> bool:
            lines.extend(lines_of(receiver))
            return line in lines

        address = plain = f"http_127.0.0.1_{unused_port}_api_v1_events"
        with StatsD("127.0.0.1", receiver.getsockname()[1], flush_interval=0.01) as stats:
            with Producer(f"http://127.0.0.1:{unused_port}", **OPTIONS, stats=stats) as producer:
                producer.emit_many([("page", b"x")] * 20)
                wait_until(lambda: arrived(f"endpoint_up:0|g|#address:{plain}"))
                wait_until(lambda: arrived("events.queued:20|g|#lane:default"))
                producer.close(0)
            lines.clear()
            wait_until(lambda: arrived(f"endpoint_up:1|g|#address:{address}"))
            assert "events.queued:0|g|#lane:default" in lines


def test_the_daemon_takes_every_line(statsd_daemon: Any, collector: Collector) -> None:
    with (
        StatsD("127.0.0.1", statsd_daemon.port, prefix="shop") as stats,
        Producer(collector.url, **FULL_BATCHES, stats=stats) as producer,
    ):
        producer.emit_many([("page", b"x" * 100)] * 20)
    statsd_daemon.wait_for(lambda daemon: daemon.counters().get("shop.events.acked;lane=default") == 20)
    assert statsd_daemon.bad_lines() == 0
    assert statsd_daemon.timers()["shop.batch.events;lane=default"] == [10.0, 10.0]


def test_opentelemetry_observes_the_ledger(collector: Collector, unused_port: int) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    with OpenTelemetry(provider, attributes={"to": "test"}, flush_interval=0.01) as stats:
        urls = [f"http://127.0.0.1:{unused_port}", collector.url]
        with Producer(urls, **OPTIONS, stats=stats, batch_events=10) as producer:
            producer.emit_many([("page", b"x" * 100)] * 20)
            producer.flush()
            wait_until(lambda: points(reader, lane="default", to="test").get("events.acked") == 20)
            assert points(reader, address=f"{urls[0]}/api/v1/events")["endpoint_up"] == 0
            assert points(reader, address=f"{urls[1]}/api/v1/events")["endpoint_up"] == 1
    # Another one on this provider, whose meter has its instruments already.
    with (
        OpenTelemetry(provider, attributes={"to": "test"}) as stats,
        Producer(collector.url, **OPTIONS, stats=stats) as producer,
    ):
        producer.emit_many([("page", b"x" * 100)] * 5)
    found = points(reader, to="test")
    assert (found["events.acked"], found["batch.events"], found["events.lost"]) == (25, 25, 0)
    assert "endpoint_up" not in found
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    units = {metric.name: metric.unit for metric in metrics}
    known = {f"raccoon_fast.{one.name}": one.unit for one in LEDGER}
    assert len(units.keys() & known.keys()) > 8
    assert all(unit == known.get(name, unit) for name, unit in units.items())
    provider.shutdown()


class Own:
    """A user's own sink."""

    def __init__(self) -> None:
        self.growth: dict[tuple[str, ...], float] = {}
        self.samples: list[Measurement] = []
        self.calls = 0

    def timing(self, name: str, ms: float) -> None:
        pass

    def count(self, name: str, n: int) -> None:
        pass

    def ledger(self, measurements: list[Measurement]) -> None:
        self.calls += 1
        for one in measurements:
            if one.kind == "counter":
                key = (one.name, *one.labels.values())
                self.growth[key] = self.growth.get(key, 0) + one.value
            elif one.kind == "histogram":
                self.samples.append(one)


def test_a_sink_of_the_user_gets_the_ledger(collector: Collector) -> None:
    own = Own()
    with Producer(collector.url, **FULL_BATCHES, stats=own) as producer:
        producer.emit_many([("page", b"x")] * 20)
    wait_until(lambda: own.growth.get(("events.acked", "default")) == 20)
    assert (
        own.growth["events.failed", "default", "closed"] == 0
        if ("events.failed", "default", "closed") in own.growth
        else True
    )
    assert Measurement("batch.events", "histogram", 10, {"lane": "default"}) in own.samples


def test_a_fault_of_a_sink_is_logged_once_and_costs_nothing(collector: Collector) -> None:
    lines: list[str] = []

    class Log:
        def info(self, msg: str, *args: object) -> None:
            pass

        def warning(self, msg: str, *args: object) -> None:
            lines.append(msg % args)

        error = warning

    class Broken(Own):
        def ledger(self, measurements: list[Measurement]) -> None:
            raise OSError("no room")

    for _ in range(2):
        with Producer(collector.url, **{**OPTIONS, "logger": Log()}, stats=Broken()) as producer:
            producer.emit_many([("page", b"x")] * 20)
            assert producer.flush() == 0
    wait_until(lambda: len(lines) == 2)
    assert lines == ["stats.ledger: no room; further failures are not logged"] * 2


def test_the_ledger_is_read_at_an_interval_and_not_per_event(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    plain = LedgerTotals.read
    monkeypatch.setattr(LedgerTotals, "read", lambda self: reads.append(1) or plain(self))
    with (
        Prometheus(CollectorRegistry(), flush_interval=60) as stats,
        Producer(collector.url, **OPTIONS, stats=stats) as producer,
    ):
        for _ in range(5000):
            producer.emit("page", b"x")
        producer.flush()
    assert len(reads) <= 3  # when it began, and when the producer and the sink were closed


def test_types_are_separated_on_demand_and_bounded(collector: Collector, registry: CollectorRegistry) -> None:
    with (
        Prometheus(registry, flush_interval=60, by_type=3) as stats,
        Producer(collector.url, **OPTIONS, stats=stats) as producer,
    ):
        for number in range(20):
            producer.emit_many([(f"type-{number}", b"x")] * (number + 1))
    samples = [one for family in registry.collect() for one in family.samples]
    acked = {one.labels["type"]: one.value for one in samples if one.name == "raccoon_fast_events_acked_total"}
    assert len(acked) == 4
    assert sum(acked.values()) == 210
    assert acked["other"] == 210 - sum(value for name, value in acked.items() if name != "other")
    assert not any("type" in one.labels for one in samples if one.name == "raccoon_fast_batch_events_count")
    with pytest.raises(ValueError, match="by_type must be above 0, as of the first one on this registry"):
        Prometheus(registry)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by_type": "3"}, TypeError, "by_type must be a number of event types"),
        ({"by_type": True}, TypeError, "by_type must be a number of event types"),
        ({"by_type": -1}, ValueError, "by_type must be from 0 to 1000, not -1"),
    ],
)
@pytest.mark.parametrize("sink", [StatsD, DogStatsD, OpenTelemetry, Prometheus])
def test_wrong_options_are_named(sink: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    more = {"registry": CollectorRegistry()} if sink is Prometheus else {}
    with pytest.raises(error, match=message):
        sink(**more, **options)


def test_labels_the_ledger_uses_are_refused(registry: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="labels must not use the names of the ledger's labels: lane, reason"):
        Prometheus(registry, labels={"lane": "a", "reason": "b"})


def test_a_stalled_scrape_does_not_hold_up_events(collector: Collector, registry: CollectorRegistry) -> None:
    with Prometheus(registry, flush_interval=0.01) as stats:
        metric = registry._names_to_collectors["raccoon_fast_events_acked_total"]
        with Producer(collector.url, **OPTIONS, stats=stats) as producer, metric._lock:
            began_s = time.monotonic()
            producer.emit_many([("page", b"x")] * 1000)
            assert producer.flush(30) == 0
            assert time.monotonic() > began_s
