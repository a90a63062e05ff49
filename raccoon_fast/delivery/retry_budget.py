"""A bound on retries, so that a server that fails is not finished off by them."""

from __future__ import annotations

__all__ = ["RetryBudget"]


class RetryBudget:
    """Retries are at most a share of first attempts, and a few more.

    Not thread-safe.

    Args:
        share: Retries for each first attempt, in the long run.
        reserve: Retries that are allowed without any first attempt; unused budget does not grow over it.
    """

    def __init__(self, share: float = 0.2, reserve: float = 16.0) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve

    def first_attempt(self) -> None:
        """A batch was sent for the first time."""
        if self._tokens < self._reserve:
            self._tokens = min(self._reserve, self._tokens + self._share)

    def take(self) -> bool:
        """Whether a retry is allowed now; if so it is paid for."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def tick(self, elapsed_s: float) -> None:
        """Time alone gives one retry a second: with nothing new to send, what failed is still tried again."""
        self._tokens = min(self._reserve, self._tokens + elapsed_s)
