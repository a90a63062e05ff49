"""How many batches are in flight at once: as many as the server takes without slowing down."""

from __future__ import annotations

__all__ = ["Concurrency"]

# An acknowledgement may take this many times the usual, and this much longer, before it counts as slow: those
# of a fast server vary by milliseconds for reasons of this machine alone.
_SLOW_FACTOR = 3.0
_SLOW_MARGIN_S = 0.010
# How fast the usual follows what is seen: down at once, up by this share of the difference at each acknowledgement.
_DRIFT = 0.01
_CUT_SLOW = 0.9
_CUT_ERROR = 0.5
# A connection that carries a gigabit a second is given no more: what is in flight beyond that lies in the kernel's
# queues, and costs it more CPU a byte the more lies there. With less than so many bytes or batches it might run dry.
_PLENTY_BYTES_PER_S = 128e6
_FEW_BYTES = 512 * 1024
_FEW_BATCHES = 3
_SMOOTHING = 1 / 8


class Concurrency:
    """Additive increase while acknowledgements come as fast as usual, multiplicative decrease when they do not.

    The usual is the least latency seen, which drifts up slowly so that a server that became slower for good is not
    starved. Not thread-safe.

    Args:
        maximum: The bound above, 1 or more; where it starts.
        connections: Among which they are shared.
    """

    def __init__(self, maximum: int, connections: int = 1) -> None:
        self._maximum = maximum
        self._connections = connections
        self._mean_s = 0.0
        self._plenty_bytes: float = _FEW_BYTES * connections
        self._exact = float(maximum)
        #: Batches that may be in flight now, from 1 to the maximum.
        self.limit = maximum
        self._usual_s = 0.0
        self._cut_s = float("-inf")

    @property
    def mean_s(self) -> float:
        """Seconds from a batch's attempt to its acknowledgement, lately; 0 before the first."""
        return self._mean_s

    def room(self, batches: int, nbytes: int) -> int:
        """How many more may be in flight, beside so many of so many bytes."""
        if nbytes >= self._plenty_bytes and batches >= _FEW_BATCHES * self._connections:
            return 0
        return self.limit - batches if batches < self.limit else 0

    def acked(self, began_s: float, now_s: float) -> None:
        """A batch sent at `began_s` was acknowledged."""
        latency_s = now_s - began_s
        self._mean_s += (latency_s - self._mean_s) * _SMOOTHING
        plenty = self._mean_s * _PLENTY_BYTES_PER_S
        # Here and where else it is run for each batch: a call of max costs as much as all that is around it.
        self._plenty_bytes = (plenty if plenty > _FEW_BYTES else _FEW_BYTES) * self._connections  # noqa: FURB136
        if self._usual_s == 0.0 or latency_s < self._usual_s:
            self._usual_s = latency_s
        else:
            self._usual_s += (latency_s - self._usual_s) * _DRIFT
        if latency_s > self._usual_s * _SLOW_FACTOR + _SLOW_MARGIN_S:
            self._cut(_CUT_SLOW, began_s, now_s)
        elif self._exact < self._maximum:
            self._set(min(self._maximum, self._exact + 1.0 / self._exact))

    def failed(self, began_s: float, now_s: float) -> None:
        """A batch sent at `began_s` failed in a way that less load may mend."""
        self._cut(_CUT_ERROR, began_s, now_s)

    def _cut(self, factor: float, began_s: float, now_s: float) -> None:
        if began_s < self._cut_s:
            return  # sent before the last cut: it tells nothing of what that one did
        self._cut_s = now_s
        self._set(max(1.0, self._exact * factor))

    def _set(self, exact: float) -> None:
        self._exact = exact
        self.limit = int(exact)
