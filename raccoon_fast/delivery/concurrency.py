"""How many batches are in flight at once: as many as the server takes without slowing down.

Strategy. A server nearby is kept busy by a few batches. Over a long way, of which each acknowledgement takes the time
there and back, as many more are needed as fit on it: the number grows in each such time as long as acknowledgements
come as fast as ever, and falls when what is in flight only waits at the other end.
"""

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
# More than at first are in flight while acknowledgements take at most this many times the least they ever took, and
# fewer again when they take more than that many times.
_FAR_FAST, _FAR_SLOW = 1.25, 1.5
# By what share, or by 1 at least, the number grows in a round: until a round was slow, and then.
_FAR_START, _FAR_STEP = 1 / 2, 1 / 8
# The least follows what is seen, round by round, if the way became longer for good: slowly, and not while more than at
# first are in flight, as these may be what takes the time.
_FAR_DRIFT = 0.01
# What answers sooner is nearby: more in flight would only lie in the kernel's queues. Known after so many rounds.
_NEAR_S = 0.010
_ROUNDS = 4
_FEW_BATCHES = 3
_SMOOTHING = 1 / 8


class Concurrency:
    """Additive increase while acknowledgements come as fast as usual, multiplicative decrease when they do not.

    The usual is the least latency seen, which drifts up slowly so that a server that became slower for good is not
    starved. Not thread-safe.

    Args:
        first: Where it starts, 1 or more.
        connections: Among which they are shared.
        most: The bound above, for a far server; None is `first`.
        most_bytes: More than `first` are in flight only while they have less than so many bytes together.
    """

    def __init__(
        self, first: int, connections: int = 1, most: int | None = None, most_bytes: float = float("inf")
    ) -> None:
        self._first = first
        self._most = max(first, most or first)
        self._most_bytes = most_bytes
        self._connections = connections
        # Whether `limit` was what held back the next one, and whether the number still grows fast.
        self._is_full = False
        self._is_starting = True
        self._least_s = float("inf")
        # The least latency of the round, and when it began.
        self._round_least_s = float("inf")
        self._round_s = 0.0
        self._rounds_left = _ROUNDS
        self._mean_s = 0.0
        self._plenty_bytes: float = _FEW_BYTES * connections
        self._exact = float(first)
        #: Batches that may be in flight now, 1 or more.
        self.limit = first
        self._usual_s = 0.0
        self._cut_s = float("-inf")

    @property
    def mean_s(self) -> float:
        """Seconds from a batch's attempt to its acknowledgement, lately; 0 before the first."""
        return self._mean_s

    def room(self, batches: int, nbytes: int) -> int:
        """How many more may be in flight, beside so many of so many bytes."""
        self._is_full = False
        if nbytes >= self._plenty_bytes and batches >= _FEW_BATCHES * self._connections:
            return 0
        if batches < self.limit:
            return 0 if nbytes >= self._most_bytes and batches >= self._first else self.limit - batches
        self._is_full = True
        return 0

    def acked(self, began_s: float, now_s: float) -> None:
        """A batch sent at `began_s` was acknowledged."""
        latency_s = now_s - began_s
        self._mean_s += (latency_s - self._mean_s) * (_SMOOTHING if self._mean_s else 1.0)
        plenty = self._mean_s * _PLENTY_BYTES_PER_S
        # Here and where else it is run for each batch: a call of max costs as much as all that is around it.
        self._plenty_bytes = (plenty if plenty > _FEW_BYTES else _FEW_BYTES) * self._connections  # noqa: FURB136
        if self._usual_s == 0.0 or latency_s < self._usual_s:
            self._usual_s = latency_s
        else:
            self._usual_s += (latency_s - self._usual_s) * _DRIFT
        if latency_s > self._usual_s * _SLOW_FACTOR + _SLOW_MARGIN_S:
            self._cut(_CUT_SLOW, began_s, now_s)
        elif self._exact < self._first:
            self._set(min(self._first, self._exact + 1.0 / self._exact))
        elif self._first < self._most:
            if latency_s < self._round_least_s:
                self._round_least_s = latency_s
            if began_s >= self._round_s:
                self._round_over(now_s)

    def failed(self, began_s: float, now_s: float) -> None:
        """A batch sent at `began_s` failed in a way that less load may mend."""
        self._least_s, self._rounds_left = float("inf"), _ROUNDS  # what comes next may be another server's
        self._cut(_CUT_ERROR, began_s, now_s)

    def _round_over(self, now_s: float) -> None:
        """Have more in flight than at first, or fewer again.

        A round, the time there and back, is judged by the least latency in it. What else delays single batches, on this
        machine or on the way, tells nothing of the server; where batches wait for one another, all of them do.
        """
        least_s, self._round_least_s, self._round_s = self._round_least_s, float("inf"), now_s
        if least_s < self._least_s:
            self._least_s = least_s
        elif self._exact <= self._first and self._least_s > _NEAR_S:
            self._least_s += (least_s - self._least_s) * _FAR_DRIFT
        if self._rounds_left:
            self._rounds_left -= 1
            return
        slower = least_s / self._least_s
        if slower > _FAR_FAST:
            self._is_starting = False
            if slower > _FAR_SLOW and self._exact > self._first:
                self._set(max(self._first, self._exact * _FAR_FAST / slower))
        elif self._is_full and self._least_s > _NEAR_S:
            step = self._exact * (_FAR_START if self._is_starting else _FAR_STEP)
            self._set(min(self._most, self._exact + max(1.0, step)))

    def _cut(self, factor: float, began_s: float, now_s: float) -> None:
        if began_s < self._cut_s:
            return  # sent before the last cut: it tells nothing of what that one did
        self._cut_s = now_s
        self._set(max(1.0, self._exact * factor))

    def _set(self, exact: float) -> None:
        self._exact = exact
        self.limit = int(exact)
