"""Histograms with powers of two as bounds."""

from __future__ import annotations

from raccoon_fast.collector.inspector.histogram import Histogram


def test_buckets() -> None:
    histogram = Histogram()
    assert histogram.buckets == []
    for number in (2, 3, 9, 15, 16):
        histogram.add(number)
    assert histogram.buckets == [(2, 4, 2), (4, 8, 0), (8, 16, 2), (16, 32, 1)]


def test_the_ends() -> None:
    histogram = Histogram()
    histogram.add(-5)
    histogram.add(0, 2)
    histogram.add(1 << 40, 1 << 40)
    assert histogram.buckets[0] == (0, 1, 3)
    assert histogram.buckets[-1] == (1 << 31, 1 << 32, 1 << 40)
