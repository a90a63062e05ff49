"""Counts of numbers by their power of two."""

from __future__ import annotations

from array import array
from typing import NamedTuple

__all__ = ["Bucket", "Histogram"]

_MAX_BUCKETS = 33


class Bucket(NamedTuple):
    """Numbers from a power of two, or from 0, up to the next.

    Attributes:
        start: The lowest number.
        end: The lowest number above the range.
        events: The number of events in the range.
    """

    start: int
    end: int
    events: int


class Histogram:
    """Counts whole numbers: those below 0 as 0, those from 2³² on as 2³². Uses memory only for counted ranges.

    Not thread-safe: the journal's lock guards it.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = array("Q")

    def add(self, number: int, count: int = 1) -> None:
        """Count a number, `count` times."""
        index = min(number.bit_length(), _MAX_BUCKETS - 1) if number > 0 else 0
        counts = self._counts
        if index >= len(counts):
            counts.extend([0] * (index + 1 - len(counts)))
        counts[index] += count

    @property
    def buckets(self) -> list[Bucket]:
        """All ranges from the first to the last that has a count."""
        counts = self._counts
        first = next((index for index, count in enumerate(counts) if count), len(counts))
        return [Bucket((1 << index) // 2, 1 << index, counts[index]) for index in range(first, len(counts))]
