"""Whether what arrived is what was sent."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.texts import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """How what arrived differs from what was sent, in events.

    Attributes:
        equal: Arrived in their place, type and bytes as sent.
        altered: Arrived in their place with another type or other bytes.
        missing: Did not arrive.
        unexpected: Arrived, but were not sent, or not so often.
    """

    equal: int
    altered: int
    missing: int
    unexpected: int

    @property
    def is_exact(self) -> bool:
        """Whether all that was sent arrived, and nothing else."""
        return not (self.altered or self.missing or self.unexpected)

    def __str__(self) -> str:
        missing = counted(self.missing, "event")
        return f"{missing} missing, {self.altered} altered, {self.unexpected} not sent or not so often"


def compare(sent: Mapping[str, Sequence[tuple[str, bytes]]], received: Iterable[tuple[str, str, bytes]]) -> Comparison:
    """Compares request by request: requests may arrive in any order, the events of one keep theirs.

    Args:
        sent: Each request's events as (type, bytes), by its guid.
        received: Each event's (guid, type, bytes), in the order of arrival.
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
