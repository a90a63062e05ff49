"""Records which faults happened to which client (in sums) and to which request (by guid)."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import NamedTuple

from raccoon_fast.collector.records import Batch, Source

__all__ = ["FaultHit", "FaultHits", "Target"]

# Limits memory with many clients or requests; the oldest are forgotten.
_MAX_HITS = 200
_MAX_REQUESTS = 2000


class Target(NamedTuple):
    """The target of a fault.

    Attributes:
        source: The client.
        req_guid: The request's guid; "" if there is none or it was not read.
        events: The number of its events; 0 if not read.
        requests: 1, or 0 for a connection or a ping.
    """

    source: Source
    req_guid: str = ""
    events: int = 0
    requests: int = 1

    @staticmethod
    def of(batch: Batch) -> Target:
        """A batch's request."""
        return Target(batch.source, batch.message.req_guid, len(batch.message.events))


class FaultHit(NamedTuple):
    """The total of what one fault did to one client.

    Attributes:
        fault: The name of the fault.
        protocol: "rest", "websocket" or "grpc".
        connection_id: The client's id header; "" without one.
        group: The client's group header; "--default--" without one.
        times: The number of times the fault happened.
        requests: The number of requests it happened to.
        events: The number of events of these requests, if they were read.
        last_time: The time of the last one, in UNIX seconds.
    """

    fault: str
    protocol: str
    connection_id: str
    group: str
    times: int
    requests: int
    events: int
    last_time: float


class FaultHits:
    """Not thread-safe: callers hold the lock of the fault table."""

    def __init__(self) -> None:
        self._hits: OrderedDict[tuple[str, str, str, str], FaultHit] = OrderedDict()
        self._by_guid: OrderedDict[str, dict[str, None]] = OrderedDict()

    def clear(self) -> None:
        """Forget all."""
        self._hits.clear()
        self._by_guid.clear()

    def add(self, fault: str, target: Target) -> None:
        """A fault happened."""
        protocol, connection_id, group, _ = target.source
        key = (fault, protocol, connection_id, group)
        last = self._hits.pop(key, None) or FaultHit(*key, 0, 0, 0, 0.0)
        self._hits[key] = last._replace(
            times=last.times + 1,
            requests=last.requests + target.requests,
            events=last.events + target.events,
            last_time=time.time(),
        )
        if len(self._hits) > _MAX_HITS:
            self._hits.popitem(last=False)
        if target.req_guid:
            self._by_guid.setdefault(target.req_guid, {})[fault] = None
            self._by_guid.move_to_end(target.req_guid)
            if len(self._by_guid) > _MAX_REQUESTS:
                self._by_guid.popitem(last=False)

    def newest(self, limit: int) -> list[FaultHit]:
        """Up to `limit` hits, the latest first."""
        return list(reversed(self._hits.values()))[:limit]

    def of_request(self, req_guid: str) -> list[str]:
        """The names of the faults that happened to the requests with a guid."""
        return list(self._by_guid.get(req_guid, ()))
