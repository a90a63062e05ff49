"""Adds up the ledgers of the producers that share a sink."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.stats.ledger import LEDGER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raccoon_fast.stats.ledger import LaneReading, Reading, Source

__all__ = ["Key", "LedgerTotals", "LedgerValues"]

# A proxy's words can become a reason, and a program's data a type: beyond this number they become "other".
_MOST_REASONS = 50
_OTHER = "other"

#: A metric's name and its label values in the order of Metric.labels, then the event type if the metric is split.
Key = tuple[str, tuple[str, ...]]


class LedgerValues(NamedTuple):
    """The values that a sink sends.

    Attributes:
        counters: Counts since the process started or was forked. They never decrease.
        gauges: Current values. A missing gauge has no value any more.
        samples: Histogram samples since the last reading.
    """

    counters: Mapping[Key, int]
    gauges: Mapping[Key, float]
    samples: list[tuple[Key, float]]


class LedgerTotals:
    """Reads producers, and adds them up.

    `watch` and `unwatch` may be called from any thread and in finalizers, and never wait; only one thread may call
    `read`.

    Args:
        most_types: The largest number of separate event types; further types are "other". 0 does not split by type.
    """

    def __init__(self, most_types: int = 0) -> None:
        self._most_types = most_types
        self._known: dict[str, set[str]] = {}
        # Passed by other threads to the reading thread.
        self._arrived: deque[Source] = deque()
        self._ended: deque[tuple[Source, Reading | None]] = deque()
        # The last reading of each source's counters.
        self._sources: dict[Source, dict[Key, int]] = {}
        self._past: Counter[Key] = Counter()

    @property
    def is_used(self) -> bool:
        """Whether there is, or was, a producer to read."""
        return bool(self._arrived or self._ended or self._sources or self._past)

    def watch(self, source: Source) -> None:
        """Start reading this source."""
        self._arrived.append(source)

    def unwatch(self, source: Source) -> None:
        """Read this source a last time now, then stop."""
        self._ended.append((source, source.read(by_type=self._most_types > 0)))

    def read(self) -> LedgerValues:
        """The sum over all producers."""
        while self._arrived:
            self._sources.setdefault(self._arrived.popleft(), {})
        samples: list[tuple[Key, float]] = []
        while self._ended:
            source, reading = self._ended.popleft()
            counters = self._sources.pop(source, {})
            if reading is not None:
                self._count(reading, counters)
                _sample(reading, samples)
            self._past.update(counters)
        gauges: Counter[Key] = Counter()
        up: dict[Key, int] = {}
        for source, counters in [*self._sources.items()]:
            reading = source.read(by_type=self._most_types > 0)
            if reading is None:
                continue  # it is freed, and its last reading may be on its way
            self._count(reading, counters)
            _sample(reading, samples)
            gauges.update(self._gauges(reading))
            for address, is_up in reading.endpoints.items():
                key = ("endpoint_up", (address,))
                up[key] = min(up.get(key, 1), int(is_up))
        total = self._past.copy()
        for counters in self._sources.values():
            total.update(counters)
        return LedgerValues(total, {**gauges, **up}, samples)

    def _count(self, reading: Reading, before: dict[Key, int]) -> None:
        """Store a reading's counters; a counter read during a change never decreases."""
        now: Counter[Key] = Counter()
        for lane in reading.lanes:
            for name, reason, event_type, count in _counts(lane):
                labels = (lane.lane,) if reason is None else (lane.lane, self._bounded(name, reason, _MOST_REASONS))
                now[name, labels + self._type(event_type)] += count
            for reason, count in lane.retries.items():
                now["retries", (lane.lane, self._bounded("retries", reason, _MOST_REASONS))] += count
        for key, count in now.items():
            before[key] = max(before.get(key, 0), count)

    def _gauges(self, reading: Reading) -> dict[Key, float]:
        gauges: Counter[Key] = Counter()
        gauges["spool_bytes", ()] += reading.spool_bytes
        gauges["connections", ()] += reading.connections
        for lane in reading.lanes:
            gauges["buffered_bytes", (lane.lane,)] += lane.buffered_bytes
            gauges["buffer_limit_bytes", (lane.lane,)] += lane.buffer_limit_bytes
            for event_type, counts in lane.counts.items():
                labels = (lane.lane, *self._type(event_type))
                gauges["events.queued", labels] += counts.queued
                gauges["events.in_flight", labels] += counts.in_flight
                gauges["events.in_spool", labels] += counts.spooled
        return gauges  # type: ignore[return-value]  # whole numbers

    def _type(self, event_type: str) -> tuple[str, ...]:
        return (self._bounded("type", event_type, self._most_types),) if self._most_types else ()

    def _bounded(self, what: str, value: str, most: int) -> str:
        known = self._known.setdefault(what, set())
        if value not in known:
            if len(known) >= most:
                return _OTHER
            known.add(value)
        return value


_PLAIN = ("accepted", "acked", "lost", "expired", "sampled", "filtered", "discarded")


def _counts(lane: LaneReading) -> list[tuple[str, str | None, str, int]]:
    """Name, reason or policy, event type and count of all counters."""
    found: list[tuple[str, str | None, str, int]] = []
    for event_type, counts in lane.counts.items():
        found += ((f"events.{name}", None, event_type, getattr(counts, name, 0)) for name in _PLAIN)
        for name in ("failed", "dropped"):
            by_reason: Mapping[str, int] = getattr(counts, name)
            found += ((f"events.{name}", reason, event_type, count) for reason, count in by_reason.items())
        found.append(("events.spooled", None, event_type, lane.spooled.get(event_type, 0)))
    return found


def _sample(reading: Reading, samples: list[tuple[Key, float]]) -> None:
    for lane in reading.lanes:
        for events, nbytes in lane.batches:
            samples.append((("batch.events", (lane.lane,)), events))
            samples.append((("batch.bytes", (lane.lane,)), nbytes))


def known_series() -> list[Key]:
    """Counters of the default lane that exist at zero from the start, so that their first change shows."""
    from raccoon_fast.stats.ledger import DEFAULT_LANE

    reasons: dict[str, tuple[str, ...]] = {
        "events.failed": ("closed", "BAD_REQUEST", "too large", "damaged"),
        "events.dropped": ("drop_newest", "drop_oldest"),
        "retries": ("ConnectError", "ConnectionLostError", "AckTimeoutError", "INTERNAL_ERROR"),
    }
    found: list[Any] = []
    for metric in LEDGER:
        if metric.kind == "counter":
            more: list[tuple[str, ...]] = [(reason,) for reason in reasons.get(metric.name, ())] or [()]
            found += ((metric.name, (DEFAULT_LANE, *reason)) for reason in more)
    return found
