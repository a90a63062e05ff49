"""The policy for retries."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["RetryPolicy"]

# In the first seconds of an outage, waits grow by the policy alone.
_FIRST_PROBES_S = 1.0
_FULL_JITTER = 2
# The waits of later probes are drawn from this range of multiples of their limit.
_LEAST, _MOST = 0.5, 1.9
# The longest wait of a probe is at least this many times `initial`.
_INITIALS = 2.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which waits, a failed attempt is repeated.

    The error decides whether a retry makes sense (`DeliveryError.retryable`): connection errors, timeouts, HTTP 408,
    429 and 5xx, INTERNAL_ERROR answers, gRPC UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED and RESOURCE_EXHAUSTED.

    Args:
        max_attempts: All attempts, including the first; 1 never retries. None means 3 for a client's request, and
            for a producer's batch as many as fit into `delivery_timeout`.
        initial: The longest wait before the second attempt, in seconds. A producer without `retry=` has 0.1.
        maximum: The longest wait between two attempts, in seconds.
        multiplier: The factor by which the wait grows per attempt, 1 or more.
        jitter: "full" draws each wait uniformly from 0 to this limit, so that clients that failed together do not
            come back together; None waits for the whole limit.
        total_timeout: Seconds for all attempts and waits of one client's request; None means no limit besides
            `max_attempts`. Producers ignore it: see `delivery_timeout`.

    Raises:
        TypeError, ValueError: An argument is of the wrong type or out of range; the message names it.
    """

    max_attempts: int | None = None
    initial: float = 1.0
    maximum: float = 30.0
    multiplier: float = 2.0
    jitter: str | None = "full"
    total_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.max_attempts is not None:
            if not isinstance(self.max_attempts, int) or isinstance(self.max_attempts, bool):
                raise TypeError(f"RetryPolicy(max_attempts=…) takes an int or None, not {self.max_attempts!r}")
            if self.max_attempts < 1:
                raise ValueError(f"RetryPolicy(max_attempts=…) must be 1 or more, not {self.max_attempts}")
        for option, least in (("initial", 0.0), ("maximum", 0.0), ("multiplier", 1.0), ("total_timeout", None)):
            value = getattr(self, option)
            if value is None and option == "total_timeout":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TypeError(f"RetryPolicy({option}=…) takes a number, not {value!r}")
            if not (value > 0.0 if least is None else least <= value) or not value < float("inf"):
                bound = "above 0" if least is None else f"{least:g} or more"
                raise ValueError(f"RetryPolicy({option}=…) must be {bound} and finite, not {value}")
        if self.jitter not in ("full", None):
            raise ValueError(f'RetryPolicy(jitter=…) must be "full" or None, not {self.jitter!r}')

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th failure in a row (1 or more)."""
        bound = self._bound_s(failures)
        # Jitter spreads load; it protects no secret.
        return random.uniform(0.0, bound) if self.jitter else bound  # noqa: S311

    def _bound_s(self, failures: int) -> float:
        try:
            # As floats, which overflow: a power of ints would grow without limit, and take long.
            return min(self.maximum, self.initial * float(self.multiplier) ** (failures - 1))
        except OverflowError:  # hours into an outage
            return self.maximum if self.initial else 0.0

    def probe_s(self, failures: int, down_s: float) -> float:
        """Seconds to wait before the next attempt at a server that is down.

        The wait grows as `delay_s` does, but no longer than the server has been down so far (or 1 s, or twice
        `initial`), so that a recovered server is found within about half of that time. With jitter the first two waits
        are drawn as in `delay_s`, because all clients that lost the server start together. Later ones are drawn from
        half the limit to nearly twice the limit: shorter waits would cost attempts and find nothing, and a narrower
        range would bring a fleet back in a higher wave.

        Args:
            failures: The number of failed attempts in a row, 1 or more.
            down_s: Seconds since the first of them failed.
        """
        bound = min(self._bound_s(failures), max(_FIRST_PROBES_S, _INITIALS * self.initial, down_s))
        if not self.jitter:
            return bound
        low, high = (0.0, bound) if failures <= _FULL_JITTER else (_LEAST * bound, min(_MOST * bound, self.maximum))
        return random.uniform(low, high)  # noqa: S311 - as in delay_s

    def pause_s(self, retry_after_s: float) -> float:
        """Seconds to wait if a server named them (Retry-After), plus up to half of that with jitter.

        It names the same time to all clients that it refuses, and they would otherwise come back together.
        """
        return retry_after_s * random.uniform(1.0, 1.5) if self.jitter else retry_after_s  # noqa: S311
