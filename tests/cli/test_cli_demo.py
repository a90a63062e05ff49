"""`raccoon-fast demo` succeeds, and fails when the collector loses or alters an event."""

from __future__ import annotations

import re

import pytest

from raccoon_fast.cli import demo, main
from raccoon_fast.collector import Collector


def rows(out: str) -> dict[str, list[str]]:
    """The table's rows by way; the columns after it."""
    cells = [re.split(r"\s{2,}", line) for line in out.splitlines()[2:]]
    return {way: columns for way, *columns in cells}


def test_all_four_ways(command):
    run = command("demo", "--records", "2000")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("2,000 flights")
    found = rows(run.stdout)
    assert {way: (row[0], row[1:4]) for way, row in found.items()} == {
        "REST, protobuf": ("Flight message", ["2,000"] * 3),
        "REST, JSON": ("JSON", ["2,000"] * 3),
        "WebSocket": ("JSON", ["2,000"] * 3),
        "gRPC": ("Flight message", ["2,000"] * 3),
    }


def test_the_user_s_own_server(command, collector):
    run = command("demo", "--records", "600", "--url", collector.url, "--grpc", f"grpc://{collector.grpc_target}")
    assert (run.returncode, run.stderr) == (0, "")
    collector.wait_for(4 * 600)
    assert {name: counts.events for name, counts in collector.counts.items()} == {
        "rest": 1200,
        "websocket": 600,
        "grpc": 600,
    }
    assert [row[1:4] for row in rows(run.stdout).values()] == [["600", "600", "not compared"]] * 4


def test_grpc_alone(command, collector):
    run = command("demo", "--records", "10", "--grpc", f"grpc://{collector.grpc_target}")
    assert run.returncode == 0
    assert list(rows(run.stdout)) == ["gRPC"]


def test_no_server_listens(command):
    run = command("demo", "--records", "10", "--grpc", "grpc://127.0.0.1:1", "--max-attempts", "1")
    assert run.returncode == 1
    assert "gRPC: 10 events not acknowledged: " in run.stderr


class Altering(Collector):
    """Shows one received event other than it came."""

    @property
    def events(self):
        events = super().events
        events[7] = events[7]._replace(data=events[7].data[:-1] + b"\x00")
        return events


class Losing(Collector):
    """Loses one event once it has come."""

    @property
    def events(self):
        return super().events[:-1]


class Doubling(Collector):
    """Shows one event twice."""

    @property
    def events(self):
        return [*super().events, super().events[0]]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Altering, "0 events missing, 1 altered, 0 not sent, or received too often"),
        (Losing, "1 event missing, 0 altered, 0 not sent, or received too often"),
        (Doubling, "0 events missing, 0 altered, 1 not sent, or received too often"),
    ],
)
def test_fails_on_a_difference_of_one_event(monkeypatch, capsys, kind, words):
    monkeypatch.setattr(demo, "new_collector", kind)
    assert main(["demo", "--records", "50"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines() == [
        f"raccoon-fast demo: {way}: {words}" for way in ("REST, protobuf", "REST, JSON", "WebSocket", "gRPC")
    ]


def test_fails_when_acknowledged_events_are_never_published(monkeypatch, capsys):
    monkeypatch.setattr(demo, "new_collector", lambda: Collector(publish_failure_rate=1.0))
    monkeypatch.setattr(demo, "_ARRIVAL_TIMEOUT_S", 0.05)
    assert main(["demo", "--records", "50"]) == 1
    out, err = capsys.readouterr()
    assert [row[2:4] for row in rows(out).values()] == [["50", "0"]] * 4
    assert err.count("50 events missing") == 4
