"""Counts of events by outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Counts"]


@dataclass(frozen=True)
class Counts:
    """Counts of events by outcome; `accepted` is always the sum of all others.

    Attributes:
        accepted: Accepted by `emit`, or found in the spool of an earlier process.
        acked: Acknowledged by a server.
        failed: Never to be delivered, by reason: the server's code, "closed", or "damaged" in the spool.
        dropped: Dropped by the overflow policy, by policy name.
        expired: Not acknowledged within delivery_timeout.
        spooled: On disk, to be sent later by this process or another one.
        queued: Waiting in memory.
        in_flight: Sent, but not answered yet.
        sampled: Left out by a lane's `sample`.
        filtered: Left out by `before_send`.
        discarded: Accepted but not sent, because the producer is turned off or sends to null://.
    """

    accepted: int = 0
    acked: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    spooled: int = 0
    queued: int = 0
    in_flight: int = 0
    sampled: int = 0
    filtered: int = 0
    discarded: int = 0

    @property
    def unsettled(self) -> int:
        """Events that wait in memory or are in flight."""
        return self.queued + self.in_flight

    @property
    def lost(self) -> int:
        """Events that will not be delivered, as far as this process knows."""
        return sum(self.failed.values()) + sum(self.dropped.values()) + self.expired
