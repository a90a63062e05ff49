"""Searches the kept events, and counts what each filter hides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from raccoon_fast.collector.inspector.decoding import EventDecoder
from raccoon_fast.collector.inspector.journal import KeptEvent
from raccoon_fast.collector.records import GRPC, REST, WEBSOCKET

__all__ = ["FILTERS", "Filters", "Found"]

#: The filters of a query, in the order in which they are applied.
FILTERS = ("type", "guid", "client", "protocol", "quality", "search")

_ALLOWED = {"protocol": (REST, WEBSOCKET, GRPC), "quality": ("good", "bad")}

_Test = Callable[[KeptEvent], bool]


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        events: The events that pass all filters, in order of their numbers.
        hidden: By filter, the number of events that it hid among those that passed the earlier filters.
    """

    events: list[KeptEvent]
    hidden: dict[str, int]


class Filters:
    """A search.

    Args:
        query: By the filter's name: "type", the event's type; "guid", part of the request's guid; "client", part of the
            client's id or group; "protocol", "rest", "websocket" or "grpc"; "quality", "good" or "bad"; "search", part
            of the data as the inspector shows it. Case matters for the type only.
        decoder: Says how data is shown.

    Raises:
        ValueError: A protocol or quality is none of these.
    """

    def __init__(self, query: Mapping[str, str], decoder: EventDecoder) -> None:
        for name, allowed in _ALLOWED.items():
            if name in query and query[name] not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {query[name][:50]!r}")
        self._query = query
        self._decoder = decoder

    @property
    def type(self) -> str | None:
        """The requested type; None for any."""
        return self._query.get("type")

    def find(self, events: Iterable[KeptEvent]) -> Found:
        """Apply the filters, one after the other: the cheap ones first."""
        left = list(events)
        hidden = {}
        for name, test in self._tests():
            before = len(left)
            left = [event for event in left if test(event)]
            hidden[name] = before - len(left)
        return Found(left, hidden)

    def _tests(self) -> Iterator[tuple[str, _Test]]:
        for name in FILTERS:
            if name in self._query:
                yield name, self._test(name, self._query[name])

    def _test(self, name: str, value: str) -> _Test:
        part = value.casefold()
        tests: dict[str, _Test] = {
            "type": lambda event: event.type == value,
            "guid": lambda event: part in event.request.req_guid.casefold(),
            "client": lambda event: (
                part in event.request.connection_id.casefold() or part in event.request.group.casefold()
            ),
            "protocol": lambda event: event.request.protocol == value,
            "quality": lambda event: (event.fault is not None) == (value == "bad"),
            "search": lambda event: part in self._decoder.decode(event.type, event.data, event.size).text.casefold(),
        }
        return tests[name]
