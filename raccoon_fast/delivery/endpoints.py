"""The servers of a producer: their health, and the choice of the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raccoon_fast.delivery.retry import RetryPolicy
    from raccoon_fast.net.address import Address
    from raccoon_fast.transports.base import Transport

__all__ = ["Endpoint", "Endpoints"]

# A server that was down gets all batches again after it has acknowledged this many in a row, one at a time.
_PROBES = 3
# A server whose sink fails gets fewer batches only after this many failures in a row, each attempt begun after the
# previous failure was known: single failures, and those of batches in flight together, say little.
_UNPUBLISHED = 3
# A server that answers can be probed often.
_SINK_PROBE_S = 2.0


class Endpoint:
    """One server, its transports and its health. Owned by the engine's loop.

    Args:
        address: The server.
        transports: One per connection.
        policy: The waits between probes.
        timeout_s: Seconds for one attempt on it.
        open_apart: Makes a transport with a separate connection, for batches that are sent alone. None if
            the server allows no further connection: such a batch then shares the first of `transports`.

    Attributes:
        address: As given.
        transports: As given.
        timeout_s: As given.
        healthy: Whether it gets all batches. An unhealthy server is probed with one batch at a time.
        last_error: Its last failure, or None while it is healthy.
        failed_with_batch: Whether a batch may have caused its last failure: a probe with
            another batch tells more.
        acked: The number of batches that it acknowledged.
        apart: The transport made by `open_apart`, while it exists.
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
        """When a batch may be sent to it: `now_s` or later; infinity during a probe."""
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
        """It answered as a healthy server does.

        Args:
            alone: Whether no other server is healthy: then there is no reason to wait.
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
        """An attempt begun at `began_s` failed as on an unhealthy server.

        Batches that were in flight together fail together, which counts as one failure.

        Args:
            error: The error of the attempt.
            began_s: When it was begun.
            now_s: When it failed.
            with_batch: Whether the batch may be the cause.
            longest_s: The latest time until the next probe, apart from the policy's `initial` and its jitter.
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

        One such answer says little about the next batch. After several in a row without an acknowledgement in between,
        the server counts as failed, and is probed until its sink works.
        """
        if began_s >= self._unpublished_s:
            self._unpublished += 1
            self._unpublished_s = now_s
        if not self.healthy or self._unpublished >= _UNPUBLISHED:
            self.failed(error, began_s, now_s, longest_s=_SINK_PROBE_S)

    def open_apart(self) -> Transport:
        """The transport for a batch that is sent alone; created if missing."""
        if self._open_apart is None:
            return self.transports[0]
        if self.apart is None:
            self.apart = self._open_apart()
        return self.apart

    def released(self) -> None:
        """A probe ended without a result (it was cancelled)."""
        self._probing = False

    def pause(self, until_s: float) -> None:
        """It asked for no requests until then (Retry-After). Its answers to earlier requests do not change that."""
        self._paused_until_s = max(self._paused_until_s, until_s)


class Endpoints:
    """The servers in order of preference.

    Args:
        all_: At least one.
    """

    def __init__(self, all_: Sequence[Endpoint]) -> None:
        self.all = list(all_)

    def choose(self, now_s: float) -> Endpoint | None:
        """The server for the next batch: the first healthy one, or an earlier one whose probe is due."""
        for endpoint in self.all:
            if endpoint.ready_s(now_s) <= now_s:
                return endpoint
        return None

    def alone(self, endpoint: Endpoint) -> bool:
        """Whether no other server is healthy."""
        return not any(other.healthy for other in self.all if other is not endpoint)

    def well(self, now_s: float) -> list[Endpoint]:
        """The healthy servers that may get a batch now."""
        return [endpoint for endpoint in self.all if endpoint.healthy and endpoint.ready_s(now_s) <= now_s]

    def next_s(self, now_s: float) -> float:
        """When `choose` may return a server; infinity if that depends on the end of a probe."""
        return min(endpoint.ready_s(now_s) for endpoint in self.all)
