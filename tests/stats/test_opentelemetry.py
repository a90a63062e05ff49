"""OpenTelemetry metrics: the real API and SDK, read like an exporter does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from raccoon_fast import RAW, AsyncRestClient, OpenTelemetry, Producer, client_info, stats
from raccoon_fast.collector import Collector

if sys.version_info >= (3, 12):
    pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider(metric_readers=[reader])
    yield provider
    provider.shutdown()


def points(reader):
    """Each metric's unit and its one data point, by name."""
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("raccoon_fast", client_info().version)
    return {metric.name: (metric.unit, *metric.data.data_points) for metric in scope.metrics}


def test_a_producer_is_measured(reader, provider):
    with (
        Collector() as collector,
        OpenTelemetry(provider, attributes={"to": "test"}) as telemetry,
        Producer(
            collector.ws_url, serializer=RAW, batch_events=10, linger=60, stats=telemetry, logger=None
        ) as producer,
    ):
        producer.emit_many([("a", b"x" * 100)] * 50)
    found = points(reader)
    assert set(found) >= {
        f"raccoon_fast.{name}" for name in ("sent_tt_ms", "ack_tt_ms", "total_bytes_sent", "total_bytes_recieved")
    }
    unit, acks = found["raccoon_fast.ack_tt_ms"]
    assert (unit, acks.count, dict(acks.attributes)) == ("ms", 5, {"to": "test"})
    assert 0 < acks.sum < 60_000
    unit, sent = found["raccoon_fast.total_bytes_sent"]
    assert unit == "By"
    assert sent.value > 5000


def test_all_five(reader, provider):
    with OpenTelemetry(provider) as telemetry:
        for name in stats.TIMINGS:
            telemetry.timing(name, 2.5)
            telemetry.timing(name, 1)
        for name in stats.COUNTERS:
            telemetry.count(name, 2)
            telemetry.count(name)
        telemetry.count("something_else")
    found = points(reader)
    assert {name: point.sum for name, (_, point) in found.items() if name.endswith("_ms")} == {
        "raccoon_fast.sent_tt_ms": 3.5,
        "raccoon_fast.ack_tt_ms": 3.5,
    }
    assert {name: point.value for name, (_, point) in found.items() if "total" in name} == {
        "raccoon_fast.total_bytes_sent": 3,
        "raccoon_fast.total_bytes_recieved": 3,
        "raccoon_fast.total_conn_err": 3,
    }


def test_a_fault_of_the_sdk_is_logged_once_and_costs_no_event(provider, monkeypatch):
    lines = []

    class Log:
        def info(self, msg, *args):
            lines.append(msg % args)

        error = info

    telemetry = OpenTelemetry(provider, flush_interval=0.001, logger=Log())

    def fail(n):
        raise OSError("no room")

    monkeypatch.setitem(telemetry._counters, stats.TOTAL_BYTES_SENT, fail)
    with Collector() as collector:
        for _ in range(3):
            with Producer(collector.url, serializer=RAW, stats=telemetry, logger=None) as producer:
                producer.emit("a", b"x")
        assert collector.event_count == 3
    telemetry.close(5)
    assert lines == ["OpenTelemetry: no room; further failures are not logged"]
    assert telemetry.dropped > 0


def test_the_global_provider_may_come_later():
    script = """
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from raccoon_fast import OpenTelemetry
        telemetry = OpenTelemetry()
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
        telemetry.count("total_bytes_sent", 7)
        telemetry.close(5)
        (resource,) = reader.get_metrics_data().resource_metrics
        print([(metric.name, metric.data.data_points[0].value) for metric in resource.scope_metrics[0].metrics])
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=50
    )
    assert (done.stdout, done.stderr) == ("[('raccoon_fast.total_bytes_sent', 7)]\n", "")


def test_a_forked_child_starts_without_its_parent_s_measurements(reader, provider):
    telemetry = OpenTelemetry(provider, flush_interval=60)
    telemetry.count(stats.TOTAL_CONN_ERR, 1)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            telemetry.count(stats.TOTAL_CONN_ERR, 10)
            telemetry.close(5)
            status = points(reader)["raccoon_fast.total_conn_err"][1].value
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
    telemetry.close(5)
    assert points(reader)["raccoon_fast.total_conn_err"][1].value == 1


def test_an_async_client_counts_as_well(reader, provider):
    import asyncio

    async def send(url):
        async with AsyncRestClient(url, serializer=RAW, stats=telemetry) as client:
            await client.send([("a", b"x")])

    with Collector() as collector, OpenTelemetry(provider) as telemetry:
        asyncio.run(send(collector.url))
    assert points(reader)["raccoon_fast.ack_tt_ms"][1].count == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"meter_provider": "global"}, "meter_provider must be an OpenTelemetry MeterProvider"),
        ({"attributes": ["a"]}, "attributes must be a mapping"),
        ({"flush_interval": None}, "flush_interval must be a number of seconds"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(TypeError, match=message):
        OpenTelemetry(**options)
