"""The last events of each type, so that a frequent type does not push out a rare one. Bounded in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raccoon_fast.collector.inspector.journal import KeptEvent

__all__ = ["KeptByType"]

_MAX_EVENTS_OF_A_TYPE = 10
_MAX_BYTES = 32 << 20
# Python's memory for an event, its request and its entry here, beside the data.
_OVERHEAD_BYTES = 1000


class KeptByType:
    """Up to 10 events per type; beyond 32 MiB the types that were seen least recently lose theirs, oldest first.

    Not thread-safe: the journal's lock guards it.
    """

    def __init__(self) -> None:
        self._events: dict[str, deque[KeptEvent]] = {}  # the type seen most recently is at the end
        self._bytes = 0

    def add(self, event: KeptEvent) -> None:
        """Keep an event."""
        events = self._events.pop(event.type, None)
        if events is None:
            events = deque()
        elif len(events) == _MAX_EVENTS_OF_A_TYPE:
            self._bytes -= _cost(events.popleft())
        events.append(event)
        self._events[event.type] = events
        self._bytes += _cost(event)
        while self._bytes > _MAX_BYTES:
            name, oldest = next(iter(self._events.items()))
            self._bytes -= _cost(oldest.popleft())
            if not oldest:
                del self._events[name]

    def of(self, event_type: str) -> list[KeptEvent]:
        """The events of a type, oldest first."""
        return list(self._events.get(event_type, ()))

    def newest_types(self) -> Iterator[KeptEvent]:
        """All events; those of the types seen most recently come first."""
        for events in reversed(self._events.values()):
            yield from events


def _cost(event: KeptEvent) -> int:
    return len(event.data) + _OVERHEAD_BYTES
