"""The simulated fleet's counts add up, and its figures equal the committed ones."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fleet_load

    return fleet_load


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fleet_waves

    return fleet_waves


def overload(load: Any, *, answer: str, seed: int = 1, budget: Any = None, batch_bytes: int = 1_000) -> Any:
    """Twenty producers, and for twenty seconds twice of what their server can do."""
    clock, tally = load.Clock(seed), load.Tally()
    server = load.Server(100.0, answer, queue=10.0)
    policy = load.DEFAULTS.retry
    fleet = [
        load.Sender(clock, server, tally, policy, budget() if budget else load.RetryBudget(), batch_bytes)
        for _ in range(20)
    ]
    load.send(clock, fleet, load.Load(2.0, 10.0, 5.0, 25.0, 40.0))
    return tally


ANSWERS = ("503", "503, Retry-After", "INTERNAL_ERROR")


@pytest.mark.parametrize("batch_bytes", [1_000, 16 << 20])
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_request_has_one_outcome(load: Any, answer: str, batch_bytes: int) -> None:
    tally = overload(load, answer=answer, batch_bytes=batch_bytes)
    assert tally.offered > 3_000
    assert tally.waiting == 0
    assert tally.outcomes.total() == tally.offered == len(tally.settled)
    assert {*tally.outcomes} <= {"acked", "expired", "dropped"}
    assert ("dropped" in tally.outcomes) == (batch_bytes > 1_000)
    assert tally.acked.total() == tally.outcomes["acked"]
    assert tally.first.total() <= tally.offered - tally.outcomes["dropped"]
    assert tally.attempts.total() > tally.first.total()
    assert tally.most_buffered <= load.DEFAULTS.buffer_bytes


def test_a_client_gives_up_after_its_attempts(load: Any) -> None:
    clock, tally = load.Clock(1), load.Tally()
    server = load.FaultyServer(1.0, float("inf"), load.REFUSED)
    policy = load.RetryPolicy()
    load.send(clock, [load.Caller(clock, server, tally, policy)], load.Load(5.0, 5.0, 0.0, 0.0, 10.0))
    assert tally.outcomes == {"failed": tally.offered}
    assert tally.attempts.total() == load.MAX_ATTEMPTS * tally.offered


def test_a_seed_decides_a_run(load: Any, waves: Any) -> None:
    assert overload(load, answer="503", seed=7) == overload(load, answer="503", seed=7)
    assert overload(load, answer="503", seed=7) != overload(load, answer="503", seed=8)
    first, second = (waves.reconnect(100, load.DEFAULTS.retry, waves.Listener(50.0, 20.0, 3.0), 7) for _ in range(2))
    assert first == second


def test_retries_keep_within_the_budget(load: Any) -> None:
    tally = overload(load, answer="INTERNAL_ERROR")
    retries = tally.attempts.total() - tally.first.total()
    last_s = max(tally.attempts)
    earned = 2 * tally.outcomes["acked"]
    assert retries <= 20 * (16 + last_s) + 0.2 * tally.first.total() + earned
    without = overload(load, answer="INTERNAL_ERROR", budget=lambda: load.RetryBudget(reserve=float("inf")))
    assert tally.amplification(5, 25) < without.amplification(5, 25)


class TestReconnecting:
    def test_everybody_comes_back_once(self, waves: Any, load: Any) -> None:
        wave = waves.reconnect(500, load.DEFAULTS.retry, waves.Listener(200.0, 100.0, 2.0), 1)
        assert len(wave.connected_s) == 500
        assert wave.connected_s == sorted(wave.connected_s)
        assert wave.connected_s[0] >= 2.0

    def test_reconnects_are_no_faster_than_the_server_accepts(self, waves: Any, load: Any) -> None:
        wave = waves.reconnect(500, load.DEFAULTS.retry, waves.Listener(100.0, 1e6), 1)
        assert wave.share_s(1.0) >= 5.0

    def test_a_client_that_waits_too_long_gives_up_and_reconnects(self, waves: Any, load: Any) -> None:
        wave = waves.reconnect(500, load.DEFAULTS.retry, waves.Listener(20.0, 1e6), 1)
        assert wave.attempts.total() > 500
        assert len(wave.connected_s) == 500

    def test_jitter_spreads_reconnecting_clients(self, waves: Any, load: Any) -> None:
        policy = load.DEFAULTS.retry
        assert policy.jitter == "full"
        jittered, together = (
            waves.reconnect(1_000, one, waves.Listener(1_000.0, 4_096.0, 10.0), 1)
            for one in (policy, dataclasses.replace(policy, jitter=None))
        )
        assert together.peak_per_s(10.0) == 10_000.0
        assert jittered.peak_per_s(10.0) < together.peak_per_s(10.0) / 20

    def test_probes_make_no_higher_wave_than_full_jitter(self, waves: Any, load: Any) -> None:
        """Although probes find the server sooner, half of them within half of the outage."""

        class FullJitter(load.RetryPolicy):  # type: ignore[name-defined,misc]
            def probe_s(self, failures: int, down_s: float) -> float:
                wait_s: float = self.delay_s(failures)
                return wait_s

        policy = load.DEFAULTS.retry
        probes, full = (
            [waves.reconnect(1_000, one, waves.Listener(1_000.0, 4_096.0, 10.0), seed) for seed in range(1, 9)]
            for one in (policy, FullJitter(initial=policy.initial))
        )
        peaks = [statistics.median(wave.peak_per_s(10.0) for wave in many) for many in (probes, full)]
        assert peaks[0] <= 1.1 * peaks[1]
        assert statistics.median(wave.share_s(0.5) for wave in probes) <= 15.0


def test_lingering_gathers_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from fleet_batches import requests

    # Of a Poisson stream a request holds the event that opened it, and what comes while it lingers.
    for linger_s in (0.01, 0.1):
        assert requests(100.0, linger_s, 20_000) == pytest.approx(100.0 / (1.0 + 100.0 * linger_s), rel=0.03)
    assert requests(100_000.0, 0.5, 50_000) == pytest.approx(100.0, rel=0.03)  # of batch_events each


@pytest.mark.timeout(300)
def test_committed_figures_are_the_simulation_s(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "fleet.py", "--quick", "--output", tmp_path]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    made, committed = (
        {table["title"]: table["cells"] for table in json.loads(path.read_text())["groups"]["fleet"]["tables"]}
        for path in (tmp_path / "fleet.json", BENCHMARKS / "results" / "fleet.json")
    )
    assert len(made) == 4
    for title, cells in made.items():
        for row, columns in cells.items():
            assert columns == committed[title][row], (title, row, "run `make bench-fleet`")
    for chart in ("requests", "waves", "overload"):
        assert ElementTree.parse(tmp_path / f"fleet-{chart}.svg").getroot().tag.endswith("svg")
