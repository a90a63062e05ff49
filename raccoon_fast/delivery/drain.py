"""Measures how fast events are acknowledged, to predict whether waiting events will be acknowledged in time."""

from __future__ import annotations

__all__ = ["Drain"]

_INTERVAL_S = 1.0
# How fast the rate follows the last interval.
_SMOOTHING = 0.3


class Drain:
    """A smoothed rate of acknowledged events.

    Written by the engine's loop only; `per_s` may be read from any thread.

    Args:
        now_s: The current time.monotonic().
    """

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._events = 0
        self._per_s = 0.0
        self._is_known = False

    def acked(self, events: int) -> None:
        """Count acknowledged events."""
        self._events += events

    def tick(self, now_s: float) -> None:
        """Update the rate; cheap, and meant to be called often."""
        elapsed_s = now_s - self._since_s
        if elapsed_s < _INTERVAL_S:
            return
        seen = self._events / elapsed_s
        # Each interval that passed without a call counts.
        weight = 1.0 - (1.0 - _SMOOTHING) ** (elapsed_s / _INTERVAL_S) if self._is_known else 1.0
        self._per_s += (seen - self._per_s) * weight
        self._is_known = True
        self._events = 0
        self._since_s = now_s

    @property
    def per_s(self) -> float | None:
        """Acknowledged events per second; None within the first second."""
        return self._per_s if self._is_known else None
