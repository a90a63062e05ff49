from __future__ import annotations

import math
import random

import pytest

from raccoon_fast.cli.batches import Batch
from raccoon_fast.cli.in_flight import Settled
from raccoon_fast.cli.summary import Latencies, Summary
from raccoon_fast.errors import AckTimeoutError


def settled(error=None, *, events=2, seconds=0.5, req_guid="guid-1"):
    return Settled(Batch([("t", b"12345")] * events, nbytes=5 * events), req_guid, error, seconds)


class TestLatencies:
    @pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 1.0])
    def test_percentiles_are_at_most_two_percent_high(self, share):
        random.seed(7)
        durations = sorted(random.lognormvariate(-5, 2) for _ in range(5000))
        latencies = Latencies()
        for duration_s in durations:
            latencies.add(duration_s)
        exact = durations[math.ceil(share * len(durations)) - 1]
        assert exact <= latencies.percentile_s(share) * (1 + 1e-9)
        assert latencies.percentile_s(share) <= exact * 1.02 * (1 + 1e-9)

    def test_memory_does_not_grow_with_the_number_of_latencies(self):
        latencies = Latencies()
        for exponent in range(-20, 20):
            for step in range(1000):
                latencies.add(10.0**exponent * (1 + step))
        assert len(latencies._buckets) < 4000

    def test_no_latencies(self):
        assert Latencies().percentile_s(0.5) == 0.0

    def test_percentiles_never_exceed_the_longest_latency(self):
        latencies = Latencies()
        latencies.add(0.123)
        assert latencies.percentile_s(0.5) == latencies.max_s == 0.123


class TestSummary:
    def test_every_event_is_acknowledged_or_failed(self):
        summary = Summary()
        for error in (None, AckTimeoutError("late"), None, AckTimeoutError("late"), ValueError("odd")):
            summary.count(settled(error))
        summary.seconds = 2.0
        assert (summary.events, summary.acknowledged, summary.unacknowledged) == (10, 4, 6)
        assert summary.failed == {"late (possibly delivered)": 4, "odd": 2}
        assert summary.as_json() == {
            "events": 10,
            "bytes": 50,
            "requests": 5,
            "acknowledged": 4,
            "failed": {"late (possibly delivered)": 4, "odd": 2},
            "bad_lines": 0,
            "seconds": 2.0,
            "events_per_s": 2.0,
            "latency_ms": {"p50": 500.0, "p90": 500.0, "p99": 500.0, "max": 500.0},
        }
        text = "\n".join(" ".join(row) for row in summary.as_rows())
        assert "not acknowledged 4: late (possibly delivered)" in text

    def test_reasons_are_bounded_and_all_failures_are_counted(self):
        summary = Summary()
        for number in range(1000):
            summary.count(settled(ValueError(f"reason {number}")))
        assert len(summary.failed) == 21
        assert summary.failed["other reasons"] == 2 * 980
        assert summary.unacknowledged == 2000

    def test_reasons_that_differ_by_guid_only_are_one(self):
        summary = Summary()
        for guid in ("guid-1", "guid-2"):
            summary.count(settled(ValueError(f"request {guid} failed"), req_guid=guid))
        assert summary.failed == {"request … failed": 4}

    def test_an_outcome_that_the_error_names_is_not_repeated(self):
        summary = Summary()
        summary.count(settled(AckTimeoutError("expired (possibly delivered); last failure: a 503")))
        assert summary.failed == {"expired (possibly delivered); last failure: a 503": 2}

    def test_failures_in_a_row(self):
        summary = Summary()
        for error in (ValueError("a"), None, ValueError("b"), ValueError("c")):
            summary.count(settled(error))
        assert summary.failed_in_a_row == 2
