"""The summary of `raccoon-fast send`."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from raccoon_fast.errors import AckTimeoutError, ClientClosedError, DeliveryError
from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from raccoon_fast.cli.in_flight import Settled

__all__ = ["Latencies", "Summary"]

_MAX_REASONS = 20  # a server's texts may differ in every failure
_OTHER_REASONS = "other reasons"


class Latencies:
    """Durations, counted in buckets 2 % apart, so that memory does not grow with their number."""

    _LEAST_S = 1e-6
    _LOG_GROWTH = math.log(1.02)

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self.max_s = 0.0

    def add(self, duration_s: float, times: int = 1) -> None:
        """Counts a duration that occurred `times` times."""
        ratio = max(duration_s / self._LEAST_S, 1.0)
        self._buckets[math.ceil(math.log(ratio) / self._LOG_GROWTH)] += times
        self._count += times
        self.max_s = max(self.max_s, duration_s)

    def percentile_s(self, share: float) -> float:
        """The duration that a `share` (0 to 1) of all did not exceed, up to 2 % too high; 0.0 if there are none."""
        left = math.ceil(share * self._count)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(self._LEAST_S * math.exp(bucket * self._LOG_GROWTH), self.max_s)
        return self.max_s


class Summary:
    """Counts of one run; in the end every submitted event is acknowledged or failed.

    Attributes:
        acknowledged: Acknowledged events.
        failed: Failed events by reason.
        nbytes: Bytes of all submitted events.
        requests: Settled requests.
        failed_in_a_row: Requests that failed since the last acknowledgement.
        bad_lines: Lines that were not events.
        latencies: From submission to acknowledgement.
        seconds: How long the run took; set at its end.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self.failed: Counter[str] = Counter()
        self.nbytes = 0
        self.requests = 0
        self.failed_in_a_row = 0
        self.bad_lines = 0
        self.latencies = Latencies()
        self.seconds = 0.0

    @property
    def unacknowledged(self) -> int:
        """Events that failed, for any reason."""
        return sum(self.failed.values())

    @property
    def events(self) -> int:
        """Events that were settled."""
        return self.acknowledged + self.unacknowledged

    def count(self, settled: Settled, failure: str = "") -> None:
        """Adds the outcome of one request.

        Args:
            settled: The request and its outcome.
            failure: The server's failure, used as the reason for a request that expired while waiting.
        """
        self.requests += 1
        self.nbytes += settled.batch.nbytes
        failed = len(settled.failed)
        self.acknowledged += len(settled.batch.events) - failed
        if settled.error is None:
            self.failed_in_a_row = 0
            self.latencies.add(settled.seconds)
            return
        self.failed_in_a_row += 1
        reason = _reason(settled, failure)
        if reason not in self.failed and len(self.failed) >= _MAX_REASONS:
            reason = _OTHER_REASONS
        self.failed[reason] += failed

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {
            "events": self.events,
            "bytes": self.nbytes,
            "requests": self.requests,
            "acknowledged": self.acknowledged,
            "failed": dict(self.failed.most_common()),
            "bad_lines": self.bad_lines,
            "seconds": round(self.seconds, 6),
            "events_per_s": round(self._per_s(self.acknowledged), 1),
            "latency_ms": {name: round(duration_s * 1e3, 3) for name, duration_s in self._latencies().items()},
        }

    def as_rows(self) -> list[tuple[str, str]]:
        """The same for people, as (name, value) pairs."""
        rows = [
            ("events", f"{self.events:,} in {counted(self.requests, 'request')}"),
            ("bytes", f"{self.nbytes:,}"),
            ("acknowledged", f"{self.acknowledged:,}"),
        ]
        rows += [("not acknowledged", f"{count:,}: {reason}") for reason, count in self.failed.most_common()]
        if self.bad_lines:
            rows.append(("bad lines", f"{self.bad_lines:,}"))
        rows.append(("seconds", f"{self.seconds:.3f}"))
        if self.acknowledged:
            rows.append(("events/s", f"{self._per_s(self.acknowledged):,.0f}"))
            latencies = ", ".join(f"{name} {value * 1e3:.1f}" for name, value in self._latencies().items())
            rows.append(("latency, ms", latencies))
        return rows

    def _per_s(self, amount: int) -> float:
        return amount / self.seconds if self.seconds else 0.0

    def _latencies(self) -> dict[str, float]:
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        return {name: self.latencies.percentile_s(share) for name, share in shares.items()} | {
            "max": self.latencies.max_s
        }


def _reason(settled: Settled, failure: str) -> str:
    error = settled.error
    text = str(error) or type(error).__name__
    if failure and isinstance(error, (AckTimeoutError, ClientClosedError)):
        text = failure
    if isinstance(error, DeliveryError) and str(error.outcome) not in text:
        text = f"{text} ({error.outcome})"
    # The guid would make every reason different.
    return text.replace(settled.req_guid, "…") if settled.req_guid else text
