"""The table of pending acknowledgements. It is also compiled, as _acks_c, with the C types in _acks_c.pxd."""

from __future__ import annotations

import enum
from typing import Any

__all__ = ["AckTable", "Verdict"]


class Verdict(enum.IntEnum):
    """How the table judges an acknowledgement.

    Attributes:
        MATCHED: The request was pending.
        DUPLICATE: The request was acknowledged before.
        LATE: The request had expired, or its sender had given up.
        UNKNOWN: The table remembers no request with this guid.
    """

    MATCHED = 0
    DUPLICATE = 1
    LATE = 2
    UNKNOWN = 3


_MATCHED = Verdict.MATCHED
_DUPLICATE = (Verdict.DUPLICATE, None)
_LATE = (Verdict.LATE, None)
_UNKNOWN = (Verdict.UNKNOWN, None)

# What happened to a guid that was pending.
_ACKED = 0
_NACKED = 1
_GIVEN_UP = 2


class AckTable:
    """The requests that were written on one connection and are not acknowledged yet.

    A guid may be written only once on a connection, unless the server answered it with an error there. A server that
    drops duplicates per connection answers SUCCESS to the second request at once, although the first may still fail.
    The events could then be lost despite the SUCCESS. So `add` refuses such a guid.

    Not thread-safe. Times are in seconds, of one clock that the caller chooses.

    Args:
        remember: How many guids the table remembers after they are no longer pending, at least 1. It forgets the
            oldest one first: an acknowledgement of that guid is then UNKNOWN, and `add` accepts the guid again.
    """

    __slots__ = (
        "_duplicates",
        "_in_order",
        "_last_deadline_s",
        "_late",
        "_oldest",
        "_past",
        "_pending",
        "_remember",
        "_ring",
        "_unknown",
    )

    def __init__(self, remember: int = 4096) -> None:
        if not isinstance(remember, int):
            raise TypeError(f"remember should be a whole number, not {type(remember).__name__}")
        if remember < 1:
            raise ValueError(f"remember should be at least 1, not {remember}")
        self._remember = remember
        self._pending: dict[str, tuple[Any, float]] = {}
        # The keys of guids that are no longer pending, each with what happened to it. _ring holds the same by age.
        self._past: dict[int, int] = {}
        self._ring: list[int] = []
        self._oldest = 0
        # While deadlines are added in order, the first pending request has the next deadline.
        self._in_order = True
        self._last_deadline_s = 0.0
        self._duplicates = 0
        self._late = 0
        self._unknown = 0

    @property
    def duplicates(self) -> int:
        """How many acknowledgements were DUPLICATE."""
        return self._duplicates

    @property
    def late(self) -> int:
        """How many acknowledgements were LATE."""
        return self._late

    @property
    def unknown(self) -> int:
        """How many acknowledgements were UNKNOWN."""
        return self._unknown

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, req_guid: object) -> bool:
        return req_guid in self._pending

    def seen(self, req_guid: str) -> bool:
        """Return whether `add` would refuse this guid."""
        return req_guid in self._pending or self._past.get(_key(req_guid), _NACKED) != _NACKED

    def add(self, req_guid: str, entry: Any, deadline_s: float) -> None:
        """Record a request that is written now.

        Args:
            req_guid: The request's guid.
            entry: Returned with the verdict.
            deadline_s: When `expire` gives the request up; `math.inf` for never. Deadlines that never decrease are
                the cheapest.

        Raises:
            ValueError: The guid is pending, or it was pending and was not answered with an error; or the deadline is
                not a number.
            TypeError: The guid is not a str.
        """
        if not isinstance(req_guid, str):
            raise TypeError(f"req_guid should be str, not {type(req_guid).__name__}")
        deadline = float(deadline_s)
        if deadline != deadline:
            raise ValueError("deadline_s should be a time, not NaN")
        if self.seen(req_guid):
            raise ValueError(f"request {req_guid!r} was written on this connection before; send it on another one")
        if not self._pending:
            self._in_order = True
        elif deadline < self._last_deadline_s:
            self._in_order = False
        self._last_deadline_s = deadline
        self._pending[req_guid] = (entry, deadline)

    def settle(self, req_guid: str, ok: bool) -> tuple[Verdict, Any]:
        """Record an acknowledgement.

        Args:
            req_guid: The guid in the acknowledgement.
            ok: Whether it says SUCCESS. If not, the guid may be added again.

        Returns:
            MATCHED and the entry; or another verdict and None. The other verdicts change only their counters.
        """
        pending = self._pending.pop(req_guid, None)
        if pending is not None:
            self._note(req_guid, _ACKED if ok else _NACKED)
            return _MATCHED, pending[0]
        fate = self._past.get(_key(req_guid), -1)
        if fate < 0:
            self._unknown += 1
            return _UNKNOWN
        if fate == _GIVEN_UP:
            self._late += 1
            return _LATE
        self._duplicates += 1
        return _DUPLICATE

    def next_deadline(self) -> float | None:
        """Return the soonest deadline in seconds, or None if nothing is pending."""
        if not self._pending:
            return None
        if self._in_order:
            for _, deadline in self._pending.values():
                return deadline
        return min([deadline for _, deadline in self._pending.values()])

    def expire(self, now_s: float) -> list[tuple[str, Any]]:
        """Give up the requests whose deadline is at or before `now_s`. Their acknowledgements will be LATE.

        Returns:
            (guid, entry) of each of these requests, in the order in which they were added.
        """
        due = []
        now = float(now_s)
        for req_guid, (entry, deadline) in self._pending.items():
            if deadline <= now:
                due.append((req_guid, entry))
            elif self._in_order:
                break
        for req_guid, _ in due:
            del self._pending[req_guid]
            self._note(req_guid, _GIVEN_UP)
        return due

    def discard(self, req_guid: str) -> Any:
        """Give up one request. Its acknowledgement will be LATE. Returns its entry, or None if it was not pending."""
        pending = self._pending.pop(req_guid, None)
        if pending is None:
            return None
        self._note(req_guid, _GIVEN_UP)
        return pending[0]

    def drain(self) -> list[tuple[str, Any]]:
        """Give up all pending requests, because the connection is lost.

        Returns:
            (guid, entry) of each of these requests, in the order in which they were added.
        """
        drained = [(req_guid, entry) for req_guid, (entry, _) in self._pending.items()]
        self._pending.clear()
        for req_guid, _ in drained:
            self._note(req_guid, _GIVEN_UP)
        return drained

    def _note(self, req_guid: str, fate: int) -> None:
        key = _key(req_guid)
        if key not in self._past:
            if len(self._ring) < self._remember:
                self._ring.append(key)
            else:
                del self._past[self._ring[self._oldest]]
                self._ring[self._oldest] = key
                self._oldest = (self._oldest + 1) % self._remember
        self._past[key] = fate


def _key(req_guid: str) -> int:
    """Return what stands for a guid that is no longer pending.

    The guid itself lies among the other objects of its batch, and would keep that memory from being returned. Two of
    the remembered guids have the same key once in 10**11 tables.
    """
    key = hash(req_guid)
    # Python keeps whole numbers of up to 60 bits in as little memory as those of 31. (A mask of 60 bits would be a
    # Python object in the compiled form.)
    return key >> 4
