"""The ledger as metrics: their definitions, and the reading of a producer.

OpenTelemetry adds "raccoon_fast." before the names, StatsD its prefix. Prometheus has them with underscores
after "raccoon_fast_", and counters end in "_total"; OpenTelemetry's exporters produce the same names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from raccoon_fast.counts import Counts

__all__ = ["BUCKETS", "DEFAULT_LANE", "LEDGER", "LaneReading", "Metric", "Reading", "Source", "plain_label"]

#: The lane of all events that belong to no other lane.
DEFAULT_LANE = "default"


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: Words with dots between them.
        kind: "counter", "gauge" or "histogram".
        unit: As UCUM writes it.
        labels: The names of its labels.
        text: The description.
        counts_events: Whether a sink may split it by event type.
    """

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    text: str
    counts_events: bool = False


def _events(name: str, kind: str, text: str, *labels: str) -> Metric:
    return Metric(f"events.{name}", kind, "{event}", ("lane", *labels), text, counts_events=True)


LEDGER: tuple[Metric, ...] = (
    _events("accepted", "counter", "Events accepted by emit, or found in the spool of an earlier process."),
    _events("acked", "counter", "Events acknowledged by a server."),
    _events("lost", "counter", "Events that will not be delivered: failed, dropped and expired together."),
    _events("failed", "counter", "Events that will not be delivered, by reason.", "reason"),
    _events("dropped", "counter", "Events dropped because the buffer was full, by overflow policy.", "policy"),
    _events("expired", "counter", "Events not acknowledged within delivery_timeout."),
    _events("spooled", "counter", "Events moved to the spool, counted each time."),
    _events("sampled", "counter", "Events left out by sampling."),
    _events("filtered", "counter", "Events left out by before_send."),
    _events("discarded", "counter", "Events accepted by a producer that sends nothing."),
    Metric("retries", "counter", "{retry}", ("lane", "reason"), "Attempts after the first of each batch, by reason."),
    _events("queued", "gauge", "Events that wait in memory."),
    _events("in_flight", "gauge", "Events sent but not answered yet."),
    _events("in_spool", "gauge", "Events on disk, to be sent later."),
    Metric("buffered_bytes", "gauge", "By", ("lane",), "Memory of batches that wait or are in flight."),
    Metric("buffer_limit_bytes", "gauge", "By", ("lane",), "The limit of buffered_bytes."),
    Metric("spool_bytes", "gauge", "By", (), "Bytes of events in the spool."),
    Metric("connections", "gauge", "{connection}", (), "Open connections to servers."),
    Metric("endpoint_up", "gauge", "1", ("address",), "0 while this server fails for a producer, else 1."),
    Metric("batch.events", "histogram", "{event}", ("lane",), "Events in a batch when it is first sent."),
    Metric("batch.bytes", "histogram", "By", ("lane",), "Bytes of a batch when it is first sent."),
)


class LaneReading(NamedTuple):
    """The state of one lane at one time.

    Attributes:
        lane: Its name.
        counts: Its events by type, or the total under "" if types are not requested.
        spooled: Events moved to the spool so far, keyed as `counts`.
        retries: Attempts after the first of each batch so far, by reason.
        buffered_bytes: Memory of batches that wait or are in flight, as buffer_bytes counts it.
        buffer_limit_bytes: The limit of `buffered_bytes`.
        batches: Events and bytes of each batch first sent since the last reading.
    """

    lane: str
    counts: Mapping[str, Counts]
    spooled: Mapping[str, int]
    retries: Mapping[str, int]
    buffered_bytes: int
    buffer_limit_bytes: int
    batches: Iterable[tuple[int, int]]


class Reading(NamedTuple):
    """The state of a producer at one time.

    Attributes:
        lanes: One per lane.
        spool_bytes: Bytes of events in the spool.
        connections: Open connections to servers.
        endpoints: Whether each server is healthy, by address without secrets.
    """

    lanes: list[LaneReading]
    spool_bytes: int
    connections: int
    endpoints: Mapping[str, bool]


class Source(Protocol):
    """A sink's view of a producer."""

    def read(self, *, by_type: bool) -> Reading | None:
        """The current reading; None once the producer is gone. Called on the sink's thread, and by `close`."""


#: The upper bounds of histogram buckets.
BUCKETS: Mapping[str, tuple[float, ...]] = {
    "batch.events": (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000),
    "batch.bytes": tuple(1 << power for power in range(8, 24)),
}

_OTHER = re.compile(r"[^A-Za-z0-9_.\-]+")
_MOST_LETTERS = 100


def plain_label(text: str) -> str:
    """A label's value for sinks that accept only letters, digits, '_', '.' and '-'; never empty."""
    return _OTHER.sub("_", text)[:_MOST_LETTERS].strip("_") or "none"
