"""A bound on retries, so that a server that fails is not finished off by them."""

from __future__ import annotations

__all__ = ["RetryBudget"]

# After this many acknowledgements in a row every further one pays for so many retries: a server that is well again is
# sent what failed before as fast as it acknowledges it.
_ROW = 4
_EARNED = 2.0


class RetryBudget:
    """Retries are at most a share of first attempts, and what acknowledgements in a row pay for.

    Retries that fail cost what they took; retries that succeed earn more than they cost. So retries stay rare while a
    server fails, and nothing is held back once it is well.

    Not thread-safe.

    Args:
        share: Retries that each first attempt pays for.
        reserve: Retries that are allowed without any first attempt; unused budget does not grow beyond it.
    """

    def __init__(self, share: float = 0.2, reserve: float = 16.0) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve
        self._row = 0

    def first_attempts(self, batches: int = 1) -> None:
        """So many batches were sent for the first time."""
        if self._tokens < self._reserve:
            self._tokens = min(self._reserve, self._tokens + batches * self._share)

    def acked(self, batches: int = 1) -> None:
        """So many batches were acknowledged."""
        self._row += batches
        earning = self._row - _ROW
        if earning > 0:
            self._row = _ROW
            if self._tokens < self._reserve:
                self._tokens = min(self._reserve, self._tokens + earning * _EARNED)

    def failed(self) -> None:
        """A batch was not published: the row of acknowledgements ends."""
        self._row = 0

    def take(self) -> bool:
        """Whether a retry is allowed now; if so it is paid for."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def tick(self, elapsed_s: float) -> None:
        """Time alone gives one retry a second: with nothing new to send, what failed is still tried again."""
        self._tokens = min(self._reserve, self._tokens + elapsed_s)
