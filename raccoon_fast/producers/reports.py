"""What a producer says of itself: the outcome of its events, and whether its servers are healthy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from raccoon_fast.counts import Counts

__all__ = ["Health", "Report", "ServerHealth"]


class ServerHealth(NamedTuple):
    """One server: its address, whether it is healthy, and its last failure ("" if healthy)."""

    address: str
    ok: bool
    last_error: str


class Health(NamedTuple):
    """Whether events get through, the reasons if not, and each server. Test `ok`: the tuple itself is always true."""

    ok: bool
    reasons: list[str]
    servers: list[ServerHealth]


@dataclass(frozen=True)
class Report:
    """The outcome of every event, as of `close` or `stats`.

    Attributes:
        total: The counts of all events.
        by_type: The counts of each event type; types beyond `max_types` are under "(other types)".
        retries: Attempts after the first of each batch.
        server_acks: The meaning of an acknowledgement, as given to the producer: "received" or "published".
        seconds: The time since the producer was created.
        by_lane: The counts of each lane; without lanes, "default" has all events. It also has the settled
            events of types beyond `max_types`, because their lanes are no longer known.
    """

    total: Counts
    by_type: dict[str, Counts]
    retries: int
    server_acks: str
    seconds: float
    by_lane: dict[str, Counts] = field(default_factory=dict)
