"""Prometheus metrics: the real package, scraped over HTTP like a Prometheus server does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import urllib.request

import pytest
from patience import patient
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from raccoon_fast import RAW, Producer, Prometheus, WebSocketClient, stats
from raccoon_fast.collector import Collector
from raccoon_fast.stats.ledger import LEDGER

if sys.version_info >= (3, 12):
    pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def scrape(registry):
    """What a scrape finds: values by sample, labels included."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    url = f"http://127.0.0.1:{server.server_port}/metrics"

    def scrape():
        with urllib.request.urlopen(url, timeout=patient(10)) as answer:
            text = answer.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            "".join([sample.name, *(f" {key}={value}" for key, value in sorted(sample.labels.items()))]): sample.value
            for sample in samples
            if not sample.name.endswith("_created")
        }

    yield scrape
    server.shutdown()
    server.server_close()
    thread.join()


def test_all_counters_exist_from_the_start(registry, scrape):
    Prometheus(registry).close()
    found = scrape()
    assert {name.split(" ")[0] for name in found} >= {
        *(f"raccoon_fast_{name}_{part}" for name in stats.TIMINGS for part in ("bucket", "count", "sum")),
        *(f"raccoon_fast_{name}_total" for name in stats.COUNTERS),
        *(f"raccoon_fast_{one.name.replace('.', '_')}_total" for one in LEDGER if one.kind == "counter"),
    }
    assert set(found.values()) == {0.0}


def test_a_producer_is_scraped(registry, scrape):
    with Collector() as collector:
        prometheus = Prometheus(registry)
        with Producer(collector.url, serializer=RAW, batch_events=10, linger=60, stats=prometheus) as producer:
            producer.emit_many([("a", b"x" * 100)] * 50)
        prometheus.close(5)
    found = scrape()
    assert found["raccoon_fast_sent_tt_ms_count"] == found["raccoon_fast_ack_tt_ms_count"] == 5
    assert found["raccoon_fast_ack_tt_ms_bucket le=+Inf"] == 5
    assert 0 < found["raccoon_fast_ack_tt_ms_sum"] < 60_000
    assert found["raccoon_fast_total_bytes_sent_total"] > 5000
    assert found["raccoon_fast_total_bytes_recieved_total"] > 0
    assert found["raccoon_fast_total_conn_err_total"] == 0


def test_the_sink_flushes_by_itself(registry, scrape):
    with Prometheus(registry, flush_interval=0.01) as prometheus:
        prometheus.count(stats.TOTAL_CONN_ERR, 3)
        while not (found := scrape()["raccoon_fast_total_conn_err_total"]):
            pass
        assert found == 3


def test_buckets_are_in_milliseconds(registry, scrape):
    with Prometheus(registry, buckets=(1, 10)) as prometheus:
        for ms in (0.5, 5, 50):
            prometheus.timing(stats.ACK_TT_MS, ms)
    found = scrape()
    buckets = {name.split("le=")[1]: value for name, value in found.items() if "ack_tt_ms_bucket" in name}
    assert buckets == {"1.0": 1, "10.0": 2, "+Inf": 3}


def test_several_sinks_share_a_registry_under_their_own_labels(registry, scrape):
    with Prometheus(registry, labels={"to": "a", "of": "x"}) as first:
        first.count(stats.TOTAL_BYTES_SENT, 1)
    with Prometheus(registry, labels={"of": "y", "to": "b"}) as second:
        second.count(stats.TOTAL_BYTES_SENT, 2)
    found = scrape()
    assert found["raccoon_fast_total_bytes_sent_total of=x to=a"] == 1
    assert found["raccoon_fast_total_bytes_sent_total of=y to=b"] == 2
    with pytest.raises(ValueError, match="labels must have the same names as the first Prometheus on this registry"):
        Prometheus(registry, labels={"other": "z"})
    again = Prometheus(registry, labels={"to": "a", "of": "x"})
    again.count(stats.TOTAL_BYTES_SENT, 10)
    again.close(5)
    assert scrape()["raccoon_fast_total_bytes_sent_total of=x to=a"] == 11


def test_other_names_are_passed_over(registry, scrape):
    with Prometheus(registry) as prometheus:
        prometheus.count("something_else", 1)
        prometheus.timing("something_else", 1)
        prometheus.count(stats.TOTAL_CONN_ERR, 1)
    assert scrape()["raccoon_fast_total_conn_err_total"] == 1
    assert prometheus.dropped == 0


def test_the_registry_does_not_delay_the_caller(registry, scrape):
    prometheus = Prometheus(registry, flush_interval=0.001)
    metric = registry._names_to_collectors["raccoon_fast_total_conn_err_total"]
    with metric._value._lock:  # as by a scrape that takes long
        for _ in range(1000):
            prometheus.count(stats.TOTAL_CONN_ERR, 1)
            prometheus.timing(stats.ACK_TT_MS, 1)
    prometheus.close(5)
    assert scrape()["raccoon_fast_total_conn_err_total"] == 1000


def test_default_registry_and_connection_errors(unused_port):
    script = f"""
        from prometheus_client import generate_latest
        from raccoon_fast import RAW, ConnectError, Prometheus, RestClient, RetryPolicy
        prometheus = Prometheus()
        options = dict(serializer=RAW, stats=prometheus, logger=None, retry=RetryPolicy(max_attempts=1))
        with RestClient("http://127.0.0.1:{unused_port}", **options) as client:
            try:
                client.send([("a", b"x")])
            except ConnectError:
                pass
        prometheus.close(5)
        print(generate_latest().decode())
    """
    out = run(script)
    assert "raccoon_fast_total_conn_err_total 1.0" in out


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=patient(50),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestFork:
    def test_a_child_starts_without_its_parent_s_measurements(self, registry, scrape):
        prometheus = Prometheus(registry, flush_interval=60)
        prometheus.count(stats.TOTAL_CONN_ERR, 1)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                prometheus.count(stats.TOTAL_CONN_ERR, 10)
                prometheus.close(5)
                status = int(registry.get_sample_value("raccoon_fast_total_conn_err_total"))
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
        prometheus.close(5)
        assert scrape()["raccoon_fast_total_conn_err_total"] == 1

    def test_workers_are_added_up_with_multiprocess_mode(self, tmp_path):
        script = """
            import os, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
            warnings.simplefilter("ignore", ResourceWarning)  # of files that prometheus_client leaves open
            from prometheus_client import CollectorRegistry, generate_latest, multiprocess
            from raccoon_fast import Prometheus
            prometheus = Prometheus(flush_interval=0.01)
            prometheus.count("total_bytes_sent", 1)
            prometheus.timing("ack_tt_ms", 7)
            for number in range(3):
                pid = os.fork()
                if pid == 0:
                    prometheus.count("total_bytes_sent", 100)
                    prometheus.timing("ack_tt_ms", 7)
                    prometheus.close(5)
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
            prometheus.close(5)
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
            print(generate_latest(registry).decode())
        """
        out = run(script, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
        assert re.search(r"^raccoon_fast_total_bytes_sent_total 301\.0$", out, re.MULTILINE)
        assert re.search(r'^raccoon_fast_ack_tt_ms_bucket\{le="10\.0"\} 4\.0$', out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"registry": "mine"}, "registry must be a prometheus_client.CollectorRegistry"),
        ({"labels": ["a"]}, "labels must be a mapping"),
        ({"flush_interval": "1"}, "flush_interval must be a number of seconds"),
        ({"logger": 1}, "logger must have info"),
    ],
)
def test_wrong_options_are_named(registry, options, message):
    with pytest.raises(TypeError, match=message):
        Prometheus(**{"registry": registry, **options})


def test_without_the_package_it_says_what_to_install():
    script = """
        import sys
        sys.modules["prometheus_client"] = sys.modules["opentelemetry"] = None
        from raccoon_fast import *
        for sink in (Prometheus, OpenTelemetry):
            try:
                sink()
            except ImportError as error:
                print(error)
    """
    assert run(script).splitlines() == [
        "Prometheus needs one more package: pip install 'raccoon_fast[prometheus]'",
        "OpenTelemetry needs one more package: pip install 'raccoon_fast[opentelemetry]'",
    ]


def test_a_client_counts_as_well(registry, scrape):
    with (
        Collector() as collector,
        Prometheus(registry) as prometheus,
        WebSocketClient(collector.ws_url, serializer=RAW, stats=prometheus, logger=None) as client,
    ):
        client.send([("a", b"x")])
    assert scrape()["raccoon_fast_ack_tt_ms_count"] == 1
