"""The servers a producer sends to: which one is well, and which one is sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.net.address import Address
    from raccoon_fast.transports.base import Transport

__all__ = ["Endpoint", "Endpoints"]

# A server that was down is sent everything again after this many batches in a row that it acknowledged, one at a time.
_PROBES = 3
# A server whose sink fails is sent less only after so many failures in a row, each begun after the one before it was
# known: single failures, and those of batches in flight together, say little.
_UNPUBLISHED = 3
# A server that answers can be asked often whether its sink is well.
_SINK_PROBE_S = 2.0


class Endpoint:
    """One server, its transports and its health. Owned by the engine's loop.

    Args:
        address: The server.
        transports: One per connection.
        policy: Waits between probes.
        timeout_s: Seconds for one attempt on it.
        open_apart: Makes a transport with a connection of its own, for batches that are sent by themselves. None where
            the server allows no further connection: such a batch then shares the first of `transports`.

    Attributes:
        address: As given.
        transports: As given.
        timeout_s: As given.
        healthy: Whether it is sent whatever there is. A server that is not is probed: one batch at a time.
        last_error: What it failed with last, or None since it is well.
        failed_with_batch: Whether its last failure came with a batch that may be the reason for it: a probe with
            another batch tells more.
        acked: Batches that it acknowledged.
        apart: The transport that `open_apart` made, while there is one.
    """

    def __init__(
        self,
        address: Address,
        transports: Sequence[Transport],
        policy: RetryPolicy,
        timeout_s: float,
        open_apart: Callable[[], Transport] | None = None,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.transports = list(transports)
        self.healthy = True
        self.last_error: Exception | None = None
        self.failed_with_batch = False
        self.acked = 0
        self.apart: Transport | None = None
        self._open_apart = open_apart
        self._policy = policy
        self._in_flight = [0] * len(self.transports)
        self._failures = 0
        self._first_failed_s = 0.0
        self._failed_s = float("-inf")
        self._unpublished = 0
        self._unpublished_s = float("-inf")
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
        self._failures = self._unpublished = 0
        if self.healthy:
            return
        self._probing = False
        self._probe_after_s = 0.0
        self._probes_left -= 1
        if alone or self._probes_left <= 0:
            self.healthy = True
            self.last_error = None

    def failed(
        self,
        error: Exception,
        began_s: float,
        now_s: float,
        *,
        with_batch: bool = False,
        longest_s: float = float("inf"),
    ) -> None:
        """An attempt begun at `began_s` failed as one on a server that is not well does.

        What was in flight together fails together: that is one failure.

        Args:
            error: What the attempt failed with.
            began_s: When it was begun.
            now_s: When it failed.
            with_batch: Whether the batch that was sent may be the reason.
            longest_s: The next probe comes no later, but for `initial` of the policy and its jitter.
        """
        self._probing = False
        self.last_error = error
        self.failed_with_batch = with_batch
        if began_s < self._failed_s:
            return
        self._failed_s = now_s
        if self._failures == 0:
            self._first_failed_s = now_s
        self._failures += 1
        self.healthy = False
        self._probes_left = _PROBES
        self._probe_after_s = now_s + self._policy.probe_s(self._failures, min(now_s - self._first_failed_s, longest_s))

    def unpublished(self, error: Exception, began_s: float, now_s: float) -> None:
        """The server answered that its sink failed to publish a batch sent at `began_s`.

        One such answer says little about the next batch. After several in a row, with no acknowledgement between them,
        the server counts as failed, and is probed until its sink is well.
        """
        if began_s >= self._unpublished_s:
            self._unpublished += 1
            self._unpublished_s = now_s
        if not self.healthy or self._unpublished >= _UNPUBLISHED:
            self.failed(error, began_s, now_s, longest_s=_SINK_PROBE_S)

    def open_apart(self) -> Transport:
        """The transport for a batch that is sent by itself; it is made where there is none."""
        if self._open_apart is None:
            return self.transports[0]
        if self.apart is None:
            self.apart = self._open_apart()
        return self.apart

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

    def well(self, now_s: float) -> list[Endpoint]:
        """Those that are well and may be sent to now."""
        return [endpoint for endpoint in self.all if endpoint.healthy and endpoint.ready_s(now_s) <= now_s]

    def next_s(self, now_s: float) -> float:
        """When `choose` may have an answer; infinity if only the end of a probe can tell."""
        return min(endpoint.ready_s(now_s) for endpoint in self.all)
