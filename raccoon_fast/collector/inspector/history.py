"""Counts over the last hour, in periods of equal length."""

from __future__ import annotations

from array import array

__all__ = ["History"]


class History:
    """A ring of counts; the oldest period makes room for the newest.

    Not thread-safe: the journal's lock guards it.

    Args:
        period_s: The length of a period in seconds.
        length: The number of periods that are kept.
    """

    __slots__ = ("_counts", "_end_s", "_index", "_newest", "_period_s")

    def __init__(self, period_s: int, length: int) -> None:
        self._period_s = period_s
        self._counts = array("L", bytes(array("L").itemsize * length))
        self._newest = 0
        self._index = 0
        self._end_s = 0.0

    def add(self, now_s: float, count: int) -> None:
        """Count an occurrence now, or in the newest period if the clock was set back."""
        if now_s >= self._end_s:
            self._advance(now_s)
        self._counts[self._index] += count

    def counts(self, now_s: float) -> list[int]:
        """The counts of all periods, oldest first; the last one is the current period, which is not over yet."""
        if now_s >= self._end_s:
            self._advance(now_s)
        return [*self._counts[self._index + 1 :], *self._counts[: self._index + 1]]

    def _advance(self, now_s: float) -> None:
        period = int(now_s // self._period_s)
        for skipped in range(max(self._newest, period - len(self._counts)) + 1, period + 1):
            self._counts[skipped % len(self._counts)] = 0
        self._newest = period
        self._index = period % len(self._counts)
        self._end_s = (period + 1) * float(self._period_s)
