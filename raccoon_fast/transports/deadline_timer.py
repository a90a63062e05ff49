"""One timer for the deadlines of all requests in flight on a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from raccoon_fast.transports.base import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DeadlineTimer"]


class DeadlineTimer:
    """A timer for the earliest deadline.

    It is not moved when that request ends, because the next deadline is usually later.

    Owned by the event loop on which it was created.

    Attributes:
        due_s: The deadline for which it is set; infinity if it is not set. `watch` does nothing for a later one.

    Args:
        expire: Called with the loop's time when a watched deadline has passed and the sockets were read after it. Ends
            overdue requests, if any, and returns the next deadline, or None.
    """

    def __init__(self, expire: Callable[[float], float | None]) -> None:
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self.due_s = float("inf")

    def watch(self, deadline_s: float) -> None:
        """Call `expire` once the loop's time has passed this deadline, or an earlier one."""
        if deadline_s >= self.due_s:
            return
        if self._handle is not None:
            self._handle.cancel()
        self.due_s = deadline_s
        self._handle = self._loop.call_at(deadline_s, self._wait_for_answers)

    def stop(self) -> None:
        """Stop calling `expire`. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self.due_s = float("inf")

    def _wait_for_answers(self) -> None:
        self._handle = self._loop.call_later(GRACE_S, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self.due_s = float("inf")
        next_s = self._expire(self._loop.time())
        if next_s is not None:
            self.watch(next_s)
