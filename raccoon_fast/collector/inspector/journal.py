"""What the inspector remembers of what passes: counts by type, latencies, the last events, what was rejected."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any, NamedTuple, TypeVar

from raccoon_fast.collector.records import GRPC, REST, WEBSOCKET, Batch, ReceivedRequest, Source
from raccoon_fast.core.event_types import tally_types
from raccoon_fast.errors import DecodeError

__all__ = [
    "MAX_DATA_BYTES",
    "MAX_EVENTS",
    "MAX_REJECTIONS",
    "MAX_TYPES",
    "Journal",
    "KeptEvent",
    "Latency",
    "Rejection",
    "TypeCount",
]

#: Of an event's data, or a rejected request's, so much is kept.
MAX_DATA_BYTES = 16 << 10
#: The last events that are kept, over all types.
MAX_EVENTS = 500
#: The last rejections that are kept.
MAX_REJECTIONS = 200
#: So many types are counted apart.
MAX_TYPES = 200

# Of a type that is rare, so that others do not push it out. All together bound the memory: to 45 MB, where every event
# is as large as what is kept of one.
_MAX_EVENTS_OF_A_TYPE = 10
_MAX_TYPE_LENGTH = 200
_MAX_REASON_LENGTH = 500

# To keep an event costs more than to receive it. So when more come than anyone could look at, only some are kept: so
# many a second and the last of each request first, with MAX_EVENTS in reserve; and of every type one now and then.
_KEPT_A_SECOND = 1000
_KEPT_OF_A_TYPE_EVERY_S = 0.1

_LATENCIES = 1000


class KeptEvent(NamedTuple):
    """One event.

    Attributes:
        number: Counts the events published, from 1; never reset.
        type: Event.type, cut to 200 characters.
        size: The bytes of Event.event_bytes.
        data: The first MAX_DATA_BYTES of them.
        request: The request that brought it.
    """

    number: int
    type: str
    size: int
    data: bytes
    request: ReceivedRequest


class Rejection(NamedTuple):
    """One request, or handshake, that was refused or whose events were not published.

    Attributes:
        number: Counts the rejections, from 1; never reset.
        time: When, UNIX seconds.
        protocol: "rest", "websocket" or "grpc".
        code: What the client was told: an HTTP status, the code of an answer, a gRPC status; "" where it was not.
        reason: Why.
        req_guid: Its guid; "" where that was not read.
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
    """How many events of a type were published.

    Attributes:
        type: Event.type, cut to 200 characters; None stands for all types beyond the first 200.
        events: By protocol.
        last_time: When the last request with one was read, UNIX seconds.
    """

    type: str | None
    events: dict[str, int]
    last_time: float


class Latency(NamedTuple):
    """Seconds from sent_time, by the client's clock, to when the request was read, by this machine's.

    Attributes:
        requests: How many the rest is of: the last 1000 that had a sent_time.
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
    __slots__ = ("counts", "kept_time", "last_time", "recent")

    def __init__(self) -> None:
        self.counts = _zeros()
        self.last_time = 0.0
        self.kept_time = 0.0
        self.recent: deque[KeptEvent] = deque(maxlen=_MAX_EVENTS_OF_A_TYPE)


class Journal:
    """Written on the collector's event loop, read and cleared on any thread.

    Args:
        lock: Held while it is written (by the caller: the ledger) and while it is read.
    """

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self._last_number = 0
        self._last_rejection = 0
        self._reserve = float(MAX_EVENTS)
        self._reserve_time = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget everything but how far the numbers have come, and count from nothing."""
        with self._lock:
            #: When counting began, UNIX seconds.
            self.since = time.time()
            self._types: dict[str, _Type] = {}
            self._others = _Type()
            self._recent: deque[KeptEvent] = deque(maxlen=MAX_EVENTS)
            self._latencies: dict[str, deque[float]] = {name: deque(maxlen=_LATENCIES) for name in _zeros()}
            self._rejections: deque[Rejection] = deque(maxlen=MAX_REJECTIONS)
            self._rejection_counts = _zeros()

    def tally(self, message: Any, wire: bytes | None) -> dict[str, tuple[int, int]]:
        """Count a request's events by type, as Request.types has it.

        Read off the wire, that takes a fortieth of the time it takes to ask `message` for each.

        Args:
            message: The SendEventRequest.
            wire: The bytes it was parsed from; None where it came as JSON.
        """
        try:
            return tally_types(message.SerializeToString() if wire is None else wire)
        except DecodeError:
            # Google.protobuf lets more pass inside a field it does not know than is right.
            message.DiscardUnknownFields()
            return tally_types(message.SerializeToString())

    # Written by the ledger, which holds the lock

    def received(self, batch: Batch) -> None:
        """A request was read."""
        sent_time = batch.sent_time
        if sent_time is not None:
            self._latencies[batch.source.protocol].append(batch.received_time - sent_time)

    def published(self, batch: Batch) -> None:
        """A request's events are in the sink."""
        events, protocol, now_s = batch.message.events, batch.source.protocol, batch.received_time
        first = len(events) - self._take_reserve(len(events), now_s)
        apart = []
        for name, (count, last) in batch.types.items():
            record = self._types.get(name) or self._record(_cut(name))
            record.counts[protocol] += count
            record.last_time = now_s
            if last >= first:
                record.kept_time = now_s
            elif abs(now_s - record.kept_time) >= _KEPT_OF_A_TYPE_EVERY_S:
                record.kept_time = now_s
                apart.append(last)
        if apart or first < len(events):
            request = batch.summary()
            for index in (*sorted(apart), *range(first, len(events))):
                self._keep(events[index], self._last_number + index + 1, request)
        self._last_number += len(events)

    def rejected(self, time_s: float, source: Source, code: str, reason: str, req_guid: str, data: bytes) -> None:
        """A request was refused, or its events were not published."""
        self._last_rejection += 1
        self._rejection_counts[source.protocol] += 1
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

    @property
    def types(self) -> list[TypeCount]:
        """In order of appearance; None, if there is one, at the end."""
        with self._lock:
            counts = [TypeCount(name, it.counts.copy(), it.last_time) for name, it in self._types.items()]
            if self._others.last_time:
                counts.append(TypeCount(None, self._others.counts.copy(), self._others.last_time))
        return counts

    @property
    def latencies(self) -> dict[str, Latency]:
        """By protocol; those without a request that had a sent_time are left out."""
        with self._lock:
            samples = {protocol: sorted(latencies) for protocol, latencies in self._latencies.items() if latencies}
        return {protocol: _latency(ordered) for protocol, ordered in samples.items()}

    @property
    def rejection_counts(self) -> dict[str, int]:
        """By protocol."""
        with self._lock:
            return self._rejection_counts.copy()

    def events(self, limit: int, after: int | None = None, type_: str | None = None) -> list[KeptEvent]:
        """Events in order of their numbers: the last `limit`, or the first `limit` behind the number `after`."""
        with self._lock:
            events = list(self._recent)
            of_type = list(self._types[type_].recent) if type_ in self._types else []
        if type_ is not None:
            chosen = {event.number: event for event in (*of_type, *events) if event.type == type_}
            events = [chosen[number] for number in sorted(chosen)]
        return _page(events, limit, after)

    def rejections(self, limit: int, after: int | None = None) -> list[Rejection]:
        """Rejections, as `events`."""
        with self._lock:
            rejections = list(self._rejections)
        return _page(rejections, limit, after)

    def _take_reserve(self, wanted: int, now_s: float) -> int:
        """How many of the `wanted` events may be kept."""
        gained = abs(now_s - self._reserve_time) * _KEPT_A_SECOND
        self._reserve = min(self._reserve + gained, MAX_EVENTS)
        self._reserve_time = now_s
        taken = min(wanted, int(self._reserve))
        self._reserve -= taken
        return taken

    def _keep(self, event: Any, number: int, request: ReceivedRequest) -> None:
        name, data = _cut(event.type), event.event_bytes
        kept = KeptEvent(number, name, len(data), data[:MAX_DATA_BYTES], request)
        self._recent.append(kept)
        self._record(name).recent.append(kept)

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
