"""The servers a producer sends to: which one is well, and which one is sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.transports.address import Address
    from raccoon_fast.transports.base import Transport

__all__ = ["Endpoint", "Endpoints"]

# A server that was down is sent everything again after this many batches in a row that it acknowledged, one at a time.
_PROBES = 3


class Endpoint:
    """One server, its transports and its health. Owned by the engine's loop.

    Attributes:
        address: The server.
        transports: One a connection.
        timeout_s: Seconds for one attempt on it.
        healthy: Whether it is sent whatever there is. A server that is not is probed: one batch at a time.
        last_error: What it failed with last, or None since it is well.
    """

    def __init__(
        self, address: Address, transports: Sequence[Transport], policy: RetryPolicy, timeout_s: float
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.transports = list(transports)
        self.healthy = True
        self.last_error: Exception | None = None
        self.acked = 0
        self._policy = policy
        self._in_flight = [0] * len(self.transports)
        self._failures = 0
        self._failed_s = float("-inf")
        self._probe_after_s = 0.0
        self._paused_until_s = 0.0
        self._probing = False
        self._probes_left = 0

    @property
    def in_flight(self) -> int:
        """Batches in flight to this server."""
        return sum(self._in_flight)

    def ready_s(self, now_s: float) -> float:
        """When a batch may be sent to it: `now_s` or later; infinity while a probe is under way."""
        if self.healthy:
            return now_s if now_s > self._paused_until_s else self._paused_until_s  # noqa: FURB136 - run for each batch
        return float("inf") if self._probing else max(now_s, self._paused_until_s, self._probe_after_s)

    def begin(self) -> int:
        """Take the least busy transport; returns its index, for `end`."""
        self._probing = not self.healthy
        index = self._in_flight.index(min(self._in_flight)) if len(self._in_flight) > 1 else 0
        self._in_flight[index] += 1
        return index

    def end(self, index: int) -> None:
        """The attempt on that transport is over."""
        self._in_flight[index] -= 1

    def succeeded(self, alone: bool) -> None:
        """It answered as a server that is well does.

        Args:
            alone: Whether there is no other server that is well: then there is nothing to wait for.
        """
        self._failures = 0
        self.acked += 1
        if self.healthy:
            return
        self._probing = False
        self._probe_after_s = 0.0
        self._probes_left -= 1
        if alone or self._probes_left <= 0:
            self.healthy = True
            self.last_error = None

    def failed(self, error: Exception, began_s: float, now_s: float) -> None:
        """An attempt begun at `began_s` failed as one on a server that is not well does.

        What was in flight together fails together: that is one failure.
        """
        self._probing = False
        self.last_error = error
        if began_s < self._failed_s:
            return
        self._failed_s = now_s
        self._failures += 1
        self.healthy = False
        self._probes_left = _PROBES
        self._probe_after_s = now_s + self._policy.delay_s(self._failures)

    def released(self) -> None:
        """A probe ended without telling anything (it was cancelled)."""
        self._probing = False

    def pause(self, until_s: float) -> None:
        """It asked not to be sent anything until then (Retry-After), whatever it answers to what it was sent before."""
        self._paused_until_s = max(self._paused_until_s, until_s)


class Endpoints:
    """Servers in the order of preference.

    Args:
        all_: At least one.
    """

    def __init__(self, all_: Sequence[Endpoint]) -> None:
        self.all = list(all_)

    def choose(self, now_s: float) -> Endpoint | None:
        """Where the next batch goes: the first that is well, but for a probe that is due at one before it."""
        for endpoint in self.all:
            if endpoint.ready_s(now_s) <= now_s:
                return endpoint
        return None

    def alone(self, endpoint: Endpoint) -> bool:
        """Whether no other server is well."""
        return not any(other.healthy for other in self.all if other is not endpoint)

    def next_s(self, now_s: float) -> float:
        """When `choose` may have an answer; infinity if only the end of a probe can tell."""
        return min(endpoint.ready_s(now_s) for endpoint in self.all)
