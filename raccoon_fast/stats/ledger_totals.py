"""Adds up the ledgers of the producers that share a sink."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.stats.ledger import LEDGER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raccoon_fast.stats.ledger import LaneReading, Reading, Source

__all__ = ["Key", "LedgerTotals", "LedgerValues"]

# A proxy's words can become a reason, and a program's data a type: what comes after so many is "other".
_MOST_REASONS = 50
_OTHER = "other"

#: A metric's name and the values of its labels, in the order of Metric.labels; then the event type, where it is split.
Key = tuple[str, tuple[str, ...]]


class LedgerValues(NamedTuple):
    """What a sink hands on.

    Attributes:
        counters: Since the process began, or was forked. They never go down.
        gauges: Now. What is not in it any more has no value.
        samples: Of histograms, since the last time.
    """

    counters: Mapping[Key, int]
    gauges: Mapping[Key, float]
    samples: list[tuple[Key, float]]


class LedgerTotals:
    """Reads producers, and adds them up.

    `watch` and `unwatch` may be called from any thread and in finalizers, and never wait; `read` is for one thread.

    Args:
        most_types: Event types that are told apart; further ones are "other". 0 tells none apart.
    """

    def __init__(self, most_types: int = 0) -> None:
        self._most_types = most_types
        self._known: dict[str, set[str]] = {}
        # What others hand over to the thread that reads.
        self._arrived: deque[Source] = deque()
        self._ended: deque[tuple[Source, Reading | None]] = deque()
        # Each source's counters as they were read last.
        self._sources: dict[Source, dict[Key, int]] = {}
        self._past: Counter[Key] = Counter()

    @property
    def is_used(self) -> bool:
        """Whether there is, or was, a producer to read."""
        return bool(self._arrived or self._ended or self._sources or self._past)

    def watch(self, source: Source) -> None:
        """Read it from now on."""
        self._arrived.append(source)

    def unwatch(self, source: Source) -> None:
        """Read it once more, here and now, and then no more."""
        self._ended.append((source, source.read(by_type=self._most_types > 0)))

    def read(self) -> LedgerValues:
        """The sum of what all producers tell."""
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
                continue  # it is freed, and its end may be on its way here
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
        """Take a reading's counters; one that was read in the midst of a change never goes down."""
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
    """Name, reason or policy, event type and count of all that only grows."""
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
    """Those of the default lane that can be there before anything happened, so that the first change of each shows."""
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
