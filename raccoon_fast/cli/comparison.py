"""Compares the events that arrived with the events that were sent."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """The difference between the events that arrived and those that were sent.

    Attributes:
        equal: Events that arrived at their place, with the type and bytes that were sent.
        altered: Events that arrived at their place with another type or other bytes.
        missing: Events that did not arrive.
        unexpected: Events that arrived but were not sent, or arrived too often.
    """

    equal: int
    altered: int
    missing: int
    unexpected: int

    @property
    def is_exact(self) -> bool:
        """Whether exactly the events that were sent have arrived."""
        return not (self.altered or self.missing or self.unexpected)

    def __str__(self) -> str:
        missing = counted(self.missing, "event")
        return f"{missing} missing, {self.altered} altered, {self.unexpected} not sent, or received too often"


def compare(sent: Mapping[str, Sequence[tuple[str, bytes]]], received: Iterable[tuple[str, str, bytes]]) -> Comparison:
    """Compares request by request: requests may arrive in any order, events within a request must keep theirs.

    Args:
        sent: The events of each request as (type, bytes), by guid.
        received: The (guid, type, bytes) of each event, in order of arrival.
    """
    arrived: defaultdict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for req_guid, event_type, data in received:
        arrived[req_guid].append((event_type, data))
    equal = altered = missing = unexpected = 0
    for req_guid, events in sent.items():
        others = arrived.pop(req_guid, [])
        same = sum(event == other for event, other in zip(events, others, strict=False))
        equal += same
        altered += min(len(events), len(others)) - same
        missing += max(0, len(events) - len(others))
        unexpected += max(0, len(others) - len(events))
    unexpected += sum(map(len, arrived.values()))
    return Comparison(equal, altered, missing, unexpected)
