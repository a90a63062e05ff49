"""The inspector's memory: counts by type, latencies, the last events and rejected requests."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from raccoon_fast.collector.inspector.histogram import Bucket, Histogram
from raccoon_fast.collector.inspector.history import History
from raccoon_fast.collector.inspector.kept_by_type import KeptByType
from raccoon_fast.collector.inspector.whole_data import WholeData
from raccoon_fast.collector.judging import Fault
from raccoon_fast.collector.records import GRPC, REST, WEBSOCKET, Batch, ReceivedRequest, Source
from raccoon_fast.core.event_types import tally_types
from raccoon_fast.errors import DecodeError

__all__ = [
    "MAX_DATA_BYTES",
    "MAX_EVENTS",
    "MAX_REJECTIONS",
    "MAX_TYPES",
    "TIMELINE_PERIOD_S",
    "TYPE_ORDERS",
    "Journal",
    "KeptEvent",
    "Latency",
    "Rejection",
    "TypeCount",
]

#: The bytes kept of an event's or a rejected request's data.
MAX_DATA_BYTES = 16 << 10
#: The number of last events kept, over all types.
MAX_EVENTS = 500
#: The number of last rejections kept.
MAX_REJECTIONS = 200
#: The number of types counted separately; 20,000 need about 25 MB.
MAX_TYPES = 20_000

# The number of kept events that a search reads, because it runs on the collector's event loop.
_MAX_SEARCHED = 5000
_MAX_TYPE_LENGTH = 200
_MAX_REASON_LENGTH = 500

# Keeping an event costs more than receiving it. So if more events arrive than a person could read, only some are kept:
# this many per second (the last of each request first, with MAX_EVENTS in reserve), and sometimes one of every type and
# one bad event.
_KEPT_A_SECOND = 1000
_KEPT_OF_A_TYPE_EVERY_S = 0.1
_KEPT_APART_A_SECOND = 2000

# A type's rate is an average over about this time, in which older events count less.
_RATE_S = 5.0

_LATENCIES = 1000

_HOUR_S = 3600
#: A period of the timeline, seconds.
TIMELINE_PERIOD_S = 10


class KeptEvent(NamedTuple):
    """One event.

    Attributes:
        number: Counts the events published, from 1; never reset.
        type: Event.type, cut to 200 characters.
        size: The bytes of Event.event_bytes.
        data: The first MAX_DATA_BYTES of them.
        request: The request that brought it.
        fault: The fault of its data; None if it is good, or its type has no schema or message.
    """

    number: int
    type: str
    size: int
    data: bytes
    request: ReceivedRequest
    fault: Fault | None = None


class Rejection(NamedTuple):
    """One refused request or handshake, or a request whose events were not published.

    Attributes:
        number: Counts the rejections, from 1; never reset.
        time: The time in UNIX seconds.
        protocol: "rest", "websocket" or "grpc".
        code: The client's answer: an HTTP status, the code of an answer, a gRPC status; "" if it got none.
        reason: The reason.
        req_guid: Its guid; "" if it was not read.
        connection_id: The client's id header; "" without one.
        group: The client's group header; "--default--" without one.
        user_agent: The User-Agent header; "" without one.
        size: The bytes of its body, as far as it was read.
        data: The first MAX_DATA_BYTES of them.
    """

    number: int
    time: float
    protocol: str
    code: str
    reason: str
    req_guid: str
    connection_id: str
    group: str
    user_agent: str
    size: int
    data: bytes


class TypeCount(NamedTuple):
    """The count of published events of a type.

    Attributes:
        type: Event.type, cut to 200 characters; None stands for all types that are not listed.
        events: By protocol.
        last_time: When the last request with one was read, UNIX seconds.
        bad: The number of bad events.
        rate: Events per second, over the last few seconds.
    """

    type: str | None
    events: dict[str, int]
    last_time: float
    bad: int
    rate: float


class Latency(NamedTuple):
    """Seconds from sent_time, by the client's clock, until the request was read, by this machine's clock.

    Attributes:
        requests: The number of requests measured: the last 1000 with a sent_time.
        median: Half of them took no longer.
        p95: 95 of a hundred took no longer.
        maximum: The longest.
    """

    requests: int
    median: float
    p95: float
    maximum: float


_Numbered = TypeVar("_Numbered", KeptEvent, Rejection)


class _Type:
    __slots__ = ("all", "bad", "counts", "history", "kept_time", "last_time", "lateness_ms", "rate", "sizes")

    def __init__(self) -> None:
        self.counts = _zeros()
        self.all = 0
        self.bad = 0
        self.last_time = 0.0
        self.kept_time = 0.0
        self.rate = 0.0
        self.history = History(60, _HOUR_S // 60)
        self.lateness_ms = Histogram()
        self.sizes = Histogram()

    def add(self, protocol: str, count: int, now_s: float) -> None:
        self.rate = self.rate_at(now_s) + count / _RATE_S
        self.counts[protocol] += count
        self.all += count
        self.last_time = now_s
        self.history.add(now_s, count)

    def rate_at(self, now_s: float) -> float:
        return self.rate * math.exp(-abs(now_s - self.last_time) / _RATE_S)

    def count(self, name: str | None, now_s: float) -> TypeCount:
        return TypeCount(name, self.counts.copy(), self.last_time, self.bad, self.rate_at(now_s))


#: The orders of types: each function makes a sort key from the name, the record and the time. Types with equal keys are
#: ordered by name.
_Order = Callable[[str, _Type, float], tuple[Any, ...]]
TYPE_ORDERS: Mapping[str, _Order] = {
    "events": lambda name, it, _: (-it.all, name),
    "name": lambda name, it, _: (name,),
    "rate": lambda name, it, now_s: (-it.rate_at(now_s), -it.all, name),
    "bad": lambda name, it, _: (-it.bad, -it.all, name),
    "last": lambda name, it, _: (-it.last_time, name),
}


class _Reserve:
    """Limits the events kept per second, and to `most` at once."""

    def __init__(self, per_second: float, most: float) -> None:
        self._per_second = per_second
        self._most = most
        self._left = most
        self._time = 0.0

    def take(self, wanted: int, now_s: float) -> int:
        """The number of the `wanted` events that may be kept."""
        self._left = min(self._left + abs(now_s - self._time) * self._per_second, self._most)
        self._time = now_s
        taken = min(wanted, int(self._left))
        self._left -= taken
        return taken


class Journal:
    """Written on the collector's event loop, read and cleared on any thread.

    Args:
        lock: Held while it is written (by the caller: the ledger) and while it is read.
    """

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self._last_number = 0
        self._last_rejection = 0
        self._reserve = _Reserve(_KEPT_A_SECOND, MAX_EVENTS)
        self._apart_reserve = _Reserve(_KEPT_APART_A_SECOND, _KEPT_APART_A_SECOND)
        self.clear()

    def clear(self) -> None:
        """Delete everything except the last numbers, and reset the counts."""
        with self._lock:
            #: The start of counting, in UNIX seconds.
            self.since = time.time()
            self._types: dict[str, _Type] = {}
            self._others = _Type()
            self._total = _Type()
            self._recent: deque[KeptEvent] = deque(maxlen=MAX_EVENTS)
            self._by_type = KeptByType()
            self._timeline = {
                name: History(TIMELINE_PERIOD_S, _HOUR_S // TIMELINE_PERIOD_S)
                for name in ("events", "requests", "acks", "rejected")
            }
            self._whole = WholeData()
            self._bad: deque[KeptEvent] = deque(maxlen=MAX_EVENTS)
            self._latencies: dict[str, deque[float]] = {name: deque(maxlen=_LATENCIES) for name in _zeros()}
            self._rejections: deque[Rejection] = deque(maxlen=MAX_REJECTIONS)
            self._rejection_counts = _zeros()

    def tally(self, message: Any, wire: bytes | None) -> dict[str, tuple[int, int]]:
        """Count a request's events by type, in the form of Request.types.

        Counting on the wire format takes a fortieth of the time of reading each event from `message`.

        Args:
            message: The SendEventRequest.
            wire: The bytes from which it was parsed; None for JSON.
        """
        try:
            return tally_types(message.SerializeToString() if wire is None else wire)
        except DecodeError:
            # google.protobuf accepts some invalid data inside unknown fields.
            message.DiscardUnknownFields()
            return tally_types(message.SerializeToString())

    # Written by the ledger, which holds the lock

    def received(self, batch: Batch) -> None:
        """Count a request that was read."""
        sent_time = batch.sent_time
        if sent_time is not None:
            self._latencies[batch.source.protocol].append(batch.received_time - sent_time)

    def published(self, batch: Batch, faults: Mapping[int, Fault] | None = None) -> None:
        """Record a request whose events are in the sink; `faults` has the faults of its bad events, by index."""
        events, protocol, now_s = batch.message.events, batch.source.protocol, batch.received_time
        first = len(events) - self._reserve.take(len(events), now_s)
        self._total.add(protocol, len(events), now_s)
        self._timeline["events"].add(now_s, len(events))
        self._timeline["requests"].add(now_s, 1)
        sent_time = batch.sent_time
        late_ms = None if sent_time is None else int((now_s - sent_time) * 1000)
        apart = set()
        for name, (count, last) in batch.types.items():
            record = self._types.get(name) or self._record(_cut(name))
            record.add(protocol, count, now_s)
            if late_ms is not None:
                record.lateness_ms.add(late_ms, count)
            if last >= first:
                record.kept_time = now_s
            elif abs(now_s - record.kept_time) >= _KEPT_OF_A_TYPE_EVERY_S and self._apart_reserve.take(1, now_s):
                record.kept_time = now_s
                apart.add(last)
        faults = faults or {}
        self._total.bad += len(faults)
        for index in faults:
            self._record(_cut(events[index].type)).bad += 1
            if index < first and index not in apart and self._apart_reserve.take(1, now_s):
                apart.add(index)
        if apart or first < len(events):
            request = batch.summary()
            for index in (*sorted(apart), *range(first, len(events))):
                self._keep(events[index], self._last_number + index + 1, request, faults.get(index))
        self._last_number += len(events)

    def acknowledged(self, time_s: float) -> None:
        """Count a request whose client got a SUCCESS answer."""
        self._timeline["acks"].add(time_s, 1)

    def rejected(self, time_s: float, source: Source, code: str, reason: str, req_guid: str, data: bytes) -> None:
        """Record a request that was refused, or whose events were not published."""
        self._last_rejection += 1
        self._rejection_counts[source.protocol] += 1
        self._timeline["rejected"].add(time_s, 1)
        self._rejections.append(
            Rejection(
                self._last_rejection,
                time_s,
                source.protocol,
                code,
                reason[:_MAX_REASON_LENGTH],
                req_guid,
                source.connection_id,
                source.group,
                source.user_agent,
                len(data),
                data[:MAX_DATA_BYTES],
            )
        )

    # Read

    def first_types(self, limit: int) -> list[TypeCount]:
        """The first `limit` types in order of appearance; then None if there are more."""
        now_s = time.time()
        with self._lock:
            counts = [record.count(name, now_s) for name, record in itertools.islice(self._types.items(), limit)]
            total = self._total.count(None, now_s)
        rest = {protocol: count - sum(it.events[protocol] for it in counts) for protocol, count in total.events.items()}
        if any(rest.values()):
            bad, rate = total.bad - sum(it.bad for it in counts), total.rate - sum(it.rate for it in counts)
            counts.append(TypeCount(None, rest, total.last_time, bad, max(rate, 0.0)))
        return counts

    def find_types(self, search: str, order: str, offset: int, limit: int) -> tuple[int, list[TypeCount]]:
        """Types with `search` in their name, in any case.

        Args:
            search: Part of the name.
            order: A key of TYPE_ORDERS.
            offset: The number of types to skip.
            limit: The largest number of types to return.

        Returns:
            The number of matching types, and the requested ones.
        """
        wanted, now_s, order_of = search.casefold(), time.time(), TYPE_ORDERS[order]
        with self._lock:
            found = [
                (order_of(name, record, now_s), name, record)
                for name, record in self._types.items()
                if not wanted or wanted in name.casefold()
            ]
            shown = heapq.nsmallest(offset + limit, found)[offset:]
            return len(found), [record.count(name, now_s) for _, name, record in shown]

    def type_count(self, name: str) -> TypeCount | None:
        """The counts of one type; None if none came."""
        with self._lock:
            record = self._types.get(name)
            return None if record is None else record.count(name, time.time())

    def type_history(self, name: str) -> list[int]:
        """Events of a type per minute of the last hour, oldest first; empty if there were none."""
        with self._lock:
            record = self._types.get(name)
            return [] if record is None else record.history.counts(time.time())

    def type_histograms(self, name: str) -> tuple[list[Bucket], list[Bucket]]:
        """For a type's events since counting began: sizes in bytes of those once kept, lateness in ms of all."""
        with self._lock:
            record = self._types.get(name)
            return ([], []) if record is None else (record.sizes.buckets, record.lateness_ms.buckets)

    @property
    def timeline(self) -> dict[str, list[int]]:
        """By "events", "requests" (published), "acks" (sent) and "rejected": counts per 10 s of the last hour."""
        now_s = time.time()
        with self._lock:
            return {name: history.counts(now_s) for name, history in self._timeline.items()}

    @property
    def last_number(self) -> int:
        """The number of the last event that was published; 0 before the first."""
        return self._last_number

    @property
    def number_of_types(self) -> int:
        """The number of types counted separately."""
        return len(self._types)

    @property
    def uncounted(self) -> TypeCount | None:
        """The events of all types beyond the first MAX_TYPES; None if there are none."""
        with self._lock:
            return self._others.count(None, time.time()) if self._others.last_time else None

    @property
    def latencies(self) -> dict[str, Latency]:
        """By protocol; without protocols that had no request with a sent_time."""
        with self._lock:
            samples = {protocol: sorted(latencies) for protocol, latencies in self._latencies.items() if latencies}
        return {protocol: _latency(ordered) for protocol, ordered in samples.items()}

    @property
    def rejection_counts(self) -> dict[str, int]:
        """By protocol."""
        with self._lock:
            return self._rejection_counts.copy()

    def events(self, limit: int, after: int | None = None, type_: str | None = None) -> list[KeptEvent]:
        """Events in order of their numbers: the last `limit`, or the first `limit` after the number `after`."""
        if type_ is None:
            with self._lock:
                events = list(self._recent)
        else:
            events = [event for event in self.kept(type_) if event.type == type_]
        return _page(events, limit, after)

    def kept(self, type_: str | None = None) -> list[KeptEvent]:
        """The events to search, in order of their numbers.

        Args:
            type_: All kept events of this type are included.

        Returns:
            The last events over all types, the last bad ones, and the last ones of `type_`; without `type_`, those of
            the most recently seen types, up to 5000 events in all.
        """
        with self._lock:
            events = {event.number: event for event in (*self._recent, *self._bad)}
            of_types = self._by_type.newest_types() if type_ is None else self._by_type.of(type_)
            for event in of_types:
                if len(events) >= _MAX_SEARCHED:
                    break
                events[event.number] = event
        return [events[number] for number in sorted(events)]

    def event(self, number: int) -> KeptEvent | None:
        """The event with a number; None if it is no longer kept."""
        with self._lock:
            everywhere = itertools.chain(reversed(self._recent), self._bad, self._by_type.newest_types())
            return next((event for event in everywhere if event.number == number), None)

    def whole_data(self, number: int) -> bytes | None:
        """All data of an event with more than MAX_DATA_BYTES; None if it is not kept."""
        with self._lock:
            return self._whole.get(number)

    def rejections(self, limit: int, after: int | None = None) -> list[Rejection]:
        """Rejections, as `events`."""
        with self._lock:
            rejections = list(self._rejections)
        return _page(rejections, limit, after)

    def _keep(self, event: Any, number: int, request: ReceivedRequest, fault: Fault | None) -> None:
        name, data = _cut(event.type), event.event_bytes
        kept = KeptEvent(number, name, len(data), data[:MAX_DATA_BYTES], request, fault)
        self._recent.append(kept)
        self._record(name).sizes.add(len(data))
        if len(data) > MAX_DATA_BYTES:
            self._whole.add(number, data)
        self._by_type.add(kept)
        if fault is not None:
            self._bad.append(kept)

    def _record(self, name: str) -> _Type:
        record = self._types.get(name)
        if record is None:
            if len(self._types) == MAX_TYPES:
                return self._others
            record = self._types[name] = _Type()
        return record


def _zeros() -> dict[str, int]:
    return dict.fromkeys((REST, WEBSOCKET, GRPC), 0)


def _cut(name: str) -> str:
    return name if len(name) <= _MAX_TYPE_LENGTH else name[:_MAX_TYPE_LENGTH]


def _latency(ordered: list[float]) -> Latency:
    count = len(ordered)
    return Latency(count, ordered[(count - 1) // 2], ordered[math.ceil(count * 0.95) - 1], ordered[-1])


def _page(kept: list[_Numbered], limit: int, after: int | None) -> list[_Numbered]:
    if after is None:
        return kept[-limit:]
    return [it for it in kept if it.number > after][:limit]
