"""Counts per period over the last hour."""

from __future__ import annotations

import pytest

from raccoon_fast.collector.inspector.history import History


def test_counts_are_in_their_periods_oldest_first() -> None:
    history = History(10, 4)
    for now_s, count in ((1000.0, 1), (1009.9, 2), (1010.0, 4), (1035.0, 8)):
        history.add(now_s, count)
    assert history.counts(1039.0) == [3, 4, 0, 8]
    assert history.counts(1040.0) == [4, 0, 8, 0]
    history.add(1041.0, 5)
    assert history.counts(1041.0) == [4, 0, 8, 5]


@pytest.mark.parametrize("later_s", [1040.0, 1050.0, 1e9])
def test_a_pause_longer_than_the_ring_leaves_nothing(later_s: float) -> None:
    history = History(10, 4)
    history.add(1000.0, 7)
    assert history.counts(later_s) == [0, 0, 0, 0]


def test_a_clock_that_went_back_counts_in_the_newest_period() -> None:
    history = History(10, 3)
    history.add(1020.0, 1)
    history.add(500.0, 2)
    assert history.counts(500.0) == [0, 0, 3]
