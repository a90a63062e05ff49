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
        end: The lowest that is too high.
        events: How many events have such a number.
    """

    start: int
    end: int
    events: int


class Histogram:
    """Whole numbers; those below 0 count as 0, those from 2³² as 2³². As small as what was counted.

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
        """From the first with a number to the last."""
        counts = self._counts
        first = next((index for index, count in enumerate(counts) if count), len(counts))
        return [Bucket((1 << index) // 2, 1 << index, counts[index]) for index in range(first, len(counts))]
