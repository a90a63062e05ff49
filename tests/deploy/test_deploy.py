"""The files in deploy/: dashboard queries find series, alerts fire, and names match those of the sinks."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard import DASHBOARD, draw, panels, series_of
from fault_proxy import UP, FaultProxy
from patience import wait_until
from ports import free_port
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_server import PrometheusServer, prometheus_server

from raccoon_fast import RAW, Producer, Prometheus, RetryPolicy, StatsD
from raccoon_fast.collector import Collector
from raccoon_fast.stats.ledger import LEDGER
from raccoon_fast.stats.sink import COUNTERS, TIMINGS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
MAPPING = DEPLOY / "statsd" / "statsd_exporter.yml"


def exposed_names() -> set[str]:
    """Every name that a query may use: those of Prometheus(), histograms by their parts."""
    names = {f"raccoon_fast_{name}_total" for name in COUNTERS}
    histograms = [f"raccoon_fast_{name}" for name in TIMINGS]
    for one in LEDGER:
        name = f"raccoon_fast_{one.name.replace('.', '_')}"
        if one.kind == "histogram":
            histograms.append(name)
        else:
            names.add(name + "_total" if one.kind == "counter" else name)
    return names | {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}


def test_queries_name_existing_metrics() -> None:
    text = DASHBOARD.read_text(encoding="utf-8") + ALERTS.read_text(encoding="utf-8")
    used = {*re.findall(r"raccoon_fast_\w+", text)}
    assert len(used) > 20
    assert used <= exposed_names()
    shown = {*re.findall(r"raccoon_fast_\w+", DASHBOARD.read_text(encoding="utf-8"))}
    for one in LEDGER:
        name = f"raccoon_fast_{one.name.replace('.', '_')}"
        assert any(use.startswith(name) for use in shown), f"the dashboard does not show {name}"


class Traffic:
    """Two producers whose server is well, gone and well again, and what was found of them."""

    def __init__(self, server: PrometheusServer, began_s: float, ended_s: float) -> None:
        self.server = server
        self.began_s = began_s
        self.ended_s = ended_s


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    folder = tmp_path_factory.mktemp("traffic")
    registry = CollectorRegistry()
    http, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with (
            prometheus_server(folder, {"shop": f"127.0.0.1:{http.server_port}"}, [ALERTS]) as server,
            Prometheus(registry, flush_interval=0.1) as stats,
            Collector() as collector,
            FaultProxy(collector.port) as proxy,
        ):
            wait_until(lambda: len(server.query("raccoon_fast_events_lost_total")) == 1)
            began_s = time.time()
            send(f"ws://127.0.0.1:{proxy.port}", f"http://127.0.0.1:{proxy.port}", folder, stats, proxy)
            server.wait_for("count(raccoon_fast_endpoint_up) or vector(0)", 0.0)
            wait_until(lambda: server.value("rate(raccoon_fast_events_failed_total[2s])") > 0)
            yield Traffic(server, began_s, time.time() + 1)
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def send(ws_url: str, http_url: str, folder: Path, stats: Prometheus, proxy: FaultProxy) -> None:
    options: dict[str, Any] = {
        "serializer": RAW,
        "logger": None,
        "stats": stats,
        "retry": RetryPolicy(initial=0.05, maximum=0.2),
        "batch_bytes": 1 << 16,
        "buffer_bytes": 1 << 18,
        "delivery_timeout": 1.5,
    }
    dropping = Producer(ws_url, overflow="drop_oldest", **options)
    spooling = Producer(http_url, overflow="spool", spool=folder / "spool", **options)
    ended = threading.Event()

    def emit() -> None:
        while not ended.wait(0.02):
            for producer in (dropping, spooling):
                producer.emit_many([("page", b"x" * 200)] * 40)

    emitting = threading.Thread(target=emit)
    emitting.start()
    try:
        for is_well, seconds in ((True, 3.0), (False, 4.0), (True, 3.0), (False, 1.0)):
            proxy.heal()
            if not is_well:
                proxy.cut_after = {UP: 0}
            ended.wait(seconds)
    finally:
        ended.set()
        emitting.join()
        dropping.close(0)  # fails what waits
        spooling.close(0)


def test_each_query_of_the_dashboard_finds_something_and_is_drawn(traffic: Traffic, tmp_path: Path) -> None:
    drawn = {}
    for panel in panels():
        series = series_of(traffic.server, panel, traffic.began_s, traffic.ended_s)
        for query in panel.queries:
            alone = series_of(traffic.server, panel._replace(queries=(query,)), traffic.began_s, traffic.ended_s)
            assert alone, f"{panel.title}: {query.expression} finds nothing"
        drawn[panel] = series
    lines = {name: points for series in drawn.values() for name, points in series.items()}
    grown = ("failed: closed", "dropped: drop_oldest", "expired", "acknowledged", "spooled", "in the spool (default)")
    for name in grown:
        assert max(value for _, value in lines[name]) > 0, name
    up = [points for name, points in lines.items() if name.startswith("ws://")]
    assert {value for _, value in up[0]} == {0.0, 1.0}
    picture = tmp_path / "dashboard.svg"
    picture.write_text(draw(drawn), encoding="utf-8")
    assert picture.read_text(encoding="utf-8").count("<polyline") == sum(len(series) for series in drawn.values())


def test_an_alert_fires_on_lost_events(traffic: Traffic) -> None:
    with urllib.request.urlopen(f"{traffic.server.url}/api/v1/rules", timeout=10) as answer:
        rules = json.load(answer)["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} == {"ok"}
    traffic.server.wait_for('count(ALERTS{alertname="RaccoonFastEventsLost", alertstate="firing"})', 1.0)


def test_the_dashboard_can_be_imported() -> None:
    """Grafana requires unique ids, panels that do not overlap and a selectable data source."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len({*ids}) == len(ids)
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        across = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in across for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    variables = [one["name"] for one in board["templating"]["list"]]
    assert variables == ["datasource", "job", "instance", "lane"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board["panels"] if panel["type"] != "row")


def test_each_alert_is_tested_and_has_its_section() -> None:
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    tests = yaml.safe_load((Path(__file__).parent / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    page = (ROOT / "docs" / "pages" / "operate.md").read_text(encoding="utf-8")
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    for rule in rules:
        name = rule["alert"]
        fires = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == name]
        assert {*fires} == {True, False}, name
        assert name in page
        assert rule["annotations"]["runbook"].removeprefix("operate.md#") in titles


def test_rules_pass_promtool() -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs Debian's package prometheus")
    done = subprocess.run(
        [program, "test", "rules", str(Path(__file__).parent / "alerts_test.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# StatsD


def mapped(name: str, kind: str) -> tuple[str, float]:
    """The name of a sample, and what its value is multiplied with, by the mapping's first rule that matches."""
    for rule in yaml.safe_load(MAPPING.read_text(encoding="utf-8"))["mappings"]:
        found = re.match(rule["match"], name)
        if found and rule["match_metric_type"] == kind:
            given = found[1] if found.groups() else ""
            return rule["name"].replace("${1}", given), rule.get("scale", 1.0)
    raise AssertionError(f"no rule for {name}")


@pytest.mark.parametrize("prefix", ["", "shop.web."])
def test_the_mapping_converts_statsd_names_to_prometheus_names(prefix: str) -> None:
    for one in LEDGER:
        name = f"raccoon_fast_{one.name.replace('.', '_')}"
        if one.kind == "histogram":
            assert mapped(prefix + one.name, "observer") == (name, 1000)
        else:
            assert mapped(prefix + one.name, one.kind)[0] == (name + "_total" if one.kind == "counter" else name)
    for name in COUNTERS:
        assert mapped(prefix + name, "counter")[0] == f"raccoon_fast_{name}_total"
    for name in TIMINGS:
        assert mapped(prefix + name, "observer") == (f"raccoon_fast_{name}", 1000)


@contextmanager
def statsd_exporter() -> Iterator[tuple[int, str]]:
    """The real one, where it is installed: its port for StatsD, and where it is scraped."""
    program = shutil.which("statsd_exporter") or shutil.which("prometheus-statsd-exporter")
    if program is None:
        pytest.skip("needs statsd_exporter (Debian: prometheus-statsd-exporter, where there is one)")
    ports = [free_port(kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    command = [program, f"--statsd.mapping-config={MAPPING}", f"--statsd.listen-udp=127.0.0.1:{ports[0]}"]
    command += ["--statsd.listen-tcp=", f"--web.listen-address=127.0.0.1:{ports[1]}"]
    url = f"http://127.0.0.1:{ports[1]}/metrics"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or answers(url) is not None)
            assert process.poll() is None
            yield ports[0], url
        finally:
            process.kill()


def answers(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def test_the_real_exporter_has_prometheus_s_names() -> None:
    with statsd_exporter() as (port, url), Collector() as collector:
        with (
            StatsD("127.0.0.1", port, prefix="shop") as stats,
            Producer(collector.url, serializer=RAW, logger=None, stats=stats, batch_events=10, linger=60) as producer,
        ):
            producer.emit_many([("page", b"x" * 100)] * 50)
        expected = [
            'raccoon_fast_events_acked_total{lane="default"} 50',
            'raccoon_fast_batch_events_sum{lane="default"} 50',
            'raccoon_fast_batch_events_bucket{lane="default",le="10"} 5',
            'raccoon_fast_events_queued{lane="default"} 0',
            "raccoon_fast_ack_tt_ms_count 5",
        ]
        wait_until(lambda: all(line in (answers(url) or "").splitlines() for line in expected))
