"""Counts requests and events, and wakes waiting threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from raccoon_fast.collector.records import GRPC, REST, WEBSOCKET, Batch, Counts, ReceivedRequest, Source

if TYPE_CHECKING:
    from raccoon_fast.collector.inspector.journal import Journal
    from raccoon_fast.collector.judging import Fault

__all__ = ["Ledger"]


class Ledger:
    """Written on the collector's event loop; any thread may read it and wait for it.

    Args:
        changed: Guards the counts; notified when one changes.
        keeps_requests: Whether to fill `requests`, which grows until `clear`.
        journal: Records everything for the inspector; None without one.
    """

    def __init__(self, changed: threading.Condition, *, keeps_requests: bool, journal: Journal | None = None) -> None:
        self._changed = changed
        self._keeps_requests = keeps_requests
        self._journal = journal
        self._connections = 0
        self._waiting = 0
        self.clear()

    def tally(self, message: Any, wire: bytes | None) -> Mapping[str, tuple[int, int]]:
        """A request's events by type, for Request.types; empty without a journal.

        Args:
            message: The SendEventRequest.
            wire: The bytes it was parsed from; None for JSON.
        """
        return {} if self._journal is None else self._journal.tally(message, wire)

    def received(self, batch: Batch) -> None:
        """A request was read."""
        with self._changed:
            self._request_counts[batch.source.protocol] += 1
            if self._keeps_requests:
                self._requests.append(batch.summary())
            if self._journal is not None:
                self._journal.received(batch)
            self._notify()

    def published(self, batch: Batch, faults: Mapping[int, Fault] | None = None) -> None:
        """A request's events are in the sink; `faults` are those of its bad events, by index."""
        with self._changed:
            self._event_counts[batch.source.protocol] += len(batch.message.events)
            if self._journal is not None:
                self._journal.published(batch, faults)
            self._notify()

    def acknowledged(self) -> None:
        """Count a request whose client got a SUCCESS answer."""
        if self._journal is not None:
            with self._changed:
                self._journal.acknowledged(time.time())

    def rejected(self, source: Source, code: str, reason: str, *, req_guid: str = "", data: bytes = b"") -> None:
        """Count a refused request or handshake, or a request whose events were not published.

        Args:
            source: The sender.
            code: The code that the client gets; "" if it gets none.
            reason: The reason.
            req_guid: Its guid, if read.
            data: Its body, if read.
        """
        if self._journal is not None:
            with self._changed:
                self._journal.rejected(time.time(), source, code, reason, req_guid, data)

    def connected(self, count: int) -> None:
        """Set the number of open WebSocket connections."""
        with self._changed:
            self._connections = count
            self._notify()

    def clear(self) -> None:
        """Set all counts to zero, except that of open connections."""
        with self._changed:
            self._request_counts = dict.fromkeys((REST, WEBSOCKET, GRPC), 0)
            self._event_counts = dict.fromkeys((REST, WEBSOCKET, GRPC), 0)
            self._requests: list[ReceivedRequest] = []
            if self._journal is not None:
                self._journal.clear()
            self._notify()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """A new list, owned by the caller."""
        with self._changed:
            return self._requests.copy()

    @property
    def counts(self) -> dict[str, Counts]:
        """By protocol."""
        with self._changed:
            return {name: Counts(self._request_counts[name], self._event_counts[name]) for name in self._event_counts}

    @property
    def event_count(self) -> int:
        """Events published, over all protocols."""
        with self._changed:
            return sum(self._event_counts.values())

    @property
    def request_count(self) -> int:
        """Requests received, over all protocols."""
        with self._changed:
            return sum(self._request_counts.values())

    @property
    def connections(self) -> int:
        """Live WebSocket connections."""
        return self._connections

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition()` is true, checked after each change; False on timeout."""
        with self._changed:
            self._waiting += 1
            try:
                return self._changed.wait_for(condition, timeout_s)
            finally:
                self._waiting -= 1

    def _notify(self) -> None:
        # Usually nobody waits, and notifying nobody costs as much as counting a request.
        if self._waiting:
            self._changed.notify_all()
