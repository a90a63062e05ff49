"""What became of every event: counted by batch, in total and by type."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raccoon_fast.threads import new_rlock

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Counts", "Ledger"]

QUEUED = "queued"
IN_FLIGHT = "in_flight"
ACKED = "acked"
EXPIRED = "expired"
SPOOLED = "spooled"
FAILED = "failed:"
DROPPED = "dropped:"
DAMAGED = FAILED + "damaged"


@dataclass(frozen=True)
class Counts:
    """Events by what became of them; `accepted` is the sum of all the others, at every moment.

    Attributes:
        accepted: Taken by `emit`, or found in the spool of an earlier process.
        acked: Acknowledged by a server.
        failed: Not to be delivered, by reason: the server's code, "closed", or "damaged" in the spool.
        dropped: Given up by the overflow policy, by its name.
        expired: Not acknowledged within delivery_timeout.
        spooled: On disk, to be sent later, by this process or another.
        queued: Waiting here.
        in_flight: Sent, and not answered yet.
    """

    accepted: int = 0
    acked: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    spooled: int = 0
    queued: int = 0
    in_flight: int = 0

    @property
    def unsettled(self) -> int:
        """Events that wait here or are in flight."""
        return self.queued + self.in_flight

    @property
    def lost(self) -> int:
        """Events that will not be delivered, as far as this process knows."""
        return sum(self.failed.values()) + sum(self.dropped.values()) + self.expired


class Ledger:
    """Moves events from one state to the next; thread-safe.

    Args by type are mappings of event type to number of events: a batch's.
    """

    def __init__(self) -> None:
        #: Held around whatever takes events from where they wait, so that no snapshot sees them twice or not at all.
        self.lock = new_rlock()
        self._by_type: defaultdict[str, defaultdict[str, int]] = defaultdict(_no_events)

    def add(self, types: Mapping[str, int], state: str) -> None:
        """Events that were not here before."""
        with self.lock:
            for event_type, count in types.items():
                self._by_type[event_type][state] += count

    def move(self, types: Mapping[str, int], before: str, after: str) -> None:
        """Events that were in state `before`."""
        with self.lock:
            for event_type, count in types.items():
                states = self._by_type[event_type]
                states[before] -= count
                states[after] += count

    def by_type(self, waiting: Mapping[str, int]) -> dict[str, Counts]:
        """Counts of each type.

        Args:
            waiting: Events that wait in the accumulator, read under `lock`.
        """
        with self.lock:
            types = {*self._by_type, *waiting}
            return {one: _counts(self._by_type.get(one, {}), waiting.get(one, 0)) for one in sorted(types)}

    def total(self, waiting: int) -> Counts:
        """Counts of all events together; `waiting` as in by_type."""
        with self.lock:
            total: Counter[str] = Counter()
            for states in self._by_type.values():
                total.update(states)
        return _counts(total, waiting)


def _no_events() -> defaultdict[str, int]:
    return defaultdict(int)


def _counts(states: Mapping[str, int], waiting: int) -> Counts:
    return Counts(
        accepted=sum(states.values()) + waiting,
        acked=states.get(ACKED, 0),
        failed=_reasons(states, FAILED),
        dropped=_reasons(states, DROPPED),
        expired=states.get(EXPIRED, 0),
        spooled=states.get(SPOOLED, 0),
        queued=states.get(QUEUED, 0) + waiting,
        in_flight=states.get(IN_FLIGHT, 0),
    )


def _reasons(states: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {state[len(prefix) :]: count for state, count in states.items() if state.startswith(prefix) and count}
