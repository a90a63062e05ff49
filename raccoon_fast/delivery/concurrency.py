"""Limits the batches in flight to as many as the server handles without slowing down.

Strategy. A few batches keep a nearby server busy. A distant server acknowledges each batch only after a long round
trip, so more batches are needed to keep it busy: the number grows in each round trip while acknowledgements do not slow
down, and falls when batches only wait at the server.
"""

from __future__ import annotations

__all__ = ["Concurrency"]

# An acknowledgement is slow if it takes longer than this many times the usual latency plus this margin:
# acknowledgements of a fast server vary by milliseconds for reasons on this machine.
_SLOW_FACTOR = 3.0
_SLOW_MARGIN_S = 0.010
# How fast the usual latency adapts: down at once, up by this share of the difference per acknowledgement.
_DRIFT = 0.01
_CUT_SLOW = 0.9
_CUT_ERROR = 0.5
# A connection that carries 1 Gbit/s gets no more batches: further ones would only wait in the kernel's
# queues, and cost more CPU per byte there. With fewer than this many bytes or batches it might run dry.
_PLENTY_BYTES_PER_S = 128e6
_FEW_BYTES = 512 * 1024
# The number grows beyond the initial one while acknowledgements take at most the first multiple of their lowest
# latency, and falls again if they take more than the second one.
_FAR_FAST, _FAR_SLOW = 1.25, 1.5
# The same with lanes, for the mean instead of the round's lowest latency: a server with several workers answers some
# batches at once while others wait.
_GENTLE_FAST, _GENTLE_SLOW = 1.15, 1.4
# The share (at least 1) by which the number grows per round: until a round is slow, and afterwards.
_FAR_START, _FAR_STEP = 1 / 2, 1 / 8
# If the distance becomes longer for good, the lowest latency adapts slowly, round by round. It does not adapt while
# more batches than initially are in flight, because they may cause the latency.
_FAR_DRIFT = 0.01
# A server that answers sooner is nearby: more batches in flight would only wait in the kernel's queues. This is known
# after so many rounds.
_NEAR_S = 0.010
_ROUNDS = 4
_FEW_BATCHES = 3
_SMOOTHING = 1 / 8


class Concurrency:
    """Additive increase while acknowledgements are as fast as usual, multiplicative decrease when they are not.

    The usual latency is the lowest one seen. It drifts up slowly, so that a server that becomes slower for good is not
    starved. Not thread-safe.

    Args:
        first: The initial number, 1 or more.
        connections: The number of connections that share them.
        most: The upper limit, for a far server; None is `first`.
        most_bytes: More than `first` are in flight only while together they have fewer bytes than this.
        is_gentle: Whether to grow in small steps, and only while hardly any batch waits at the server: for lanes, where
            each waiting batch delays those of higher priority.

    Attributes:
        limit: The number of batches that may be in flight now, 1 or more.
        is_held_back: Set by the owner: whether a batch waits although there is room, because that room is kept free for
            other batches. The number may grow as if there were no room.
    """

    is_held_back = False

    def __init__(
        self,
        first: int,
        connections: int = 1,
        most: int | None = None,
        most_bytes: float = float("inf"),
        *,
        is_gentle: bool = False,
    ) -> None:
        self._first = first
        self._most = max(first, most or first)
        self._most_bytes = most_bytes
        self._connections = connections
        # Whether `limit` held back the next batch, and whether the number still grows fast.
        self._is_full = False
        self._is_starting = not is_gentle
        self._is_gentle = is_gentle
        self._fast, self._slow = (_GENTLE_FAST, _GENTLE_SLOW) if is_gentle else (_FAR_FAST, _FAR_SLOW)
        self._least_s = float("inf")
        # The lowest latency of the round, and when the round began.
        self._round_least_s = float("inf")
        self._round_s = 0.0
        self._rounds_left = _ROUNDS
        self._mean_s = 0.0
        self._exact = float(first)
        self.limit = first
        self._usual_s = 0.0
        self._cut_s = float("-inf")

    @property
    def mean_s(self) -> float:
        """Recent seconds from a batch's attempt to its acknowledgement; 0 before the first."""
        return self._mean_s

    def room(self, batches: int, nbytes: int) -> int:
        """How many more batches may be in flight, besides the given number and bytes."""
        self._is_full = False
        connections = self._connections
        if (
            nbytes >= _FEW_BYTES * connections
            and batches >= _FEW_BATCHES * connections
            and nbytes >= self._mean_s * _PLENTY_BYTES_PER_S * connections
        ):
            return 0
        if batches < self.limit:
            return 0 if nbytes >= self._most_bytes and batches >= self._first else self.limit - batches
        self._is_full = True
        return 0

    def acked(self, began_s: float, now_s: float) -> None:
        """A batch sent at `began_s` was acknowledged."""
        latency_s = now_s - began_s
        mean_s, usual_s = self._mean_s, self._usual_s
        self._mean_s = mean_s + (latency_s - mean_s) * _SMOOTHING if mean_s else latency_s
        # 0 before the first acknowledgement.
        usual_s = usual_s + (latency_s - usual_s) * _DRIFT if 0.0 < usual_s <= latency_s else latency_s
        self._usual_s = usual_s
        if latency_s > usual_s * _SLOW_FACTOR + _SLOW_MARGIN_S:
            self._cut(_CUT_SLOW, began_s, now_s)
        elif self._exact < self._first:
            self._set(min(self._first, self._exact + 1.0 / self._exact))
        elif self._first < self._most:
            if latency_s < self._round_least_s:
                self._round_least_s = latency_s
            if began_s >= self._round_s:
                self._round_over(now_s)

    def failed(self, began_s: float, now_s: float) -> None:
        """A batch sent at `began_s` failed in a way that less load may fix."""
        self._least_s, self._rounds_left = float("inf"), _ROUNDS  # the next sample may be of another server
        self._cut(_CUT_ERROR, began_s, now_s)

    def _round_over(self, now_s: float) -> None:
        """Raise the number above the initial one, or lower it again.

        A round (one round trip) is judged by its lowest latency. Delays of single batches, on this machine or in the
        network, say nothing about the server; but if batches wait for one another, all of them are late.
        """
        least_s, self._round_least_s, self._round_s = self._round_least_s, float("inf"), now_s
        if least_s < self._least_s:
            self._least_s = least_s
        elif self._exact <= self._first and self._least_s > _NEAR_S:
            self._least_s += (least_s - self._least_s) * _FAR_DRIFT
        if self._rounds_left:
            self._rounds_left -= 1
            return
        slower = (self._mean_s if self._is_gentle else least_s) / self._least_s
        if slower > self._fast:
            self._is_starting = False
            if slower > self._slow and self._exact > self._first:
                self._set(max(self._first, self._exact * self._fast / slower))
        elif (self._is_full or self.is_held_back) and self._least_s > _NEAR_S:
            step = self._exact * (_FAR_START if self._is_starting else _FAR_STEP)
            self._set(min(self._most, self._exact + max(1.0, step)))

    def _cut(self, factor: float, began_s: float, now_s: float) -> None:
        if began_s < self._cut_s:
            return  # sent before the last cut: it does not show the effect of that cut
        self._cut_s = now_s
        self._set(max(1.0, self._exact * factor))

    def _set(self, exact: float) -> None:
        self._exact = exact
        self.limit = int(exact)
