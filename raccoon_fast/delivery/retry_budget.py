"""Limits retries, so that they do not overload a failing server."""

from __future__ import annotations

__all__ = ["RetryBudget"]

# After the first number of acknowledgements in a row, every further one pays for the second number of retries: a
# recovered server gets failed batches again as fast as it acknowledges them.
_ROW = 4
_EARNED = 2.0


class RetryBudget:
    """Allows retries as a share of first attempts, plus those that acknowledgements in a row pay for.

    Failed retries use up the budget; successful retries earn more than they cost. So retries stay rare while a
    server fails, and nothing is held back once it has recovered.

    Not thread-safe.

    Args:
        share: The number of retries that each first attempt pays for.
        reserve: Retries allowed without any first attempt; unused budget does not grow beyond it.
    """

    def __init__(self, share: float = 0.2, reserve: float = 16.0) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve
        self._row = 0

    def first_attempts(self, batches: int = 1) -> None:
        """Count batches that were sent for the first time."""
        if self._tokens < self._reserve:
            self._tokens = min(self._reserve, self._tokens + batches * self._share)

    def acked(self, batches: int = 1) -> None:
        """Count acknowledged batches."""
        self._row += batches
        earning = self._row - _ROW
        if earning > 0:
            self._row = _ROW
            if self._tokens < self._reserve:
                self._tokens = min(self._reserve, self._tokens + earning * _EARNED)

    def failed(self) -> None:
        """Note a batch that was not published: the row of acknowledgements ends."""
        self._row = 0

    def take(self) -> bool:
        """Whether a retry is allowed now; if so, it is charged."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def tick(self, elapsed_s: float) -> None:
        """Add one retry per second, so that failed batches are retried even if nothing new is sent."""
        self._tokens = min(self._reserve, self._tokens + elapsed_s)
