"""How the command ends: its exit codes, the signals that end it early, and when it gives a server up."""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GIVE_UP_AFTER", "GRACE_S", "PATIENCE_S", "Exit", "StopSignals", "UsageError"]

#: Requests in a row: a server that is down, or refuses all, would have a large file read for nothing.
GIVE_UP_AFTER = 16
#: Seconds that what is in flight at a Ctrl-C has.
GRACE_S = 5.0
#: A server that takes nothing for so long is given up.
PATIENCE_S = 20.0


class Exit(enum.IntEnum):
    """The exit codes; ended by a signal, it is 128 and the signal's number."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 128 + signal.SIGINT


class UsageError(Exception):
    """The command cannot do what it was asked to; the message says what to do instead."""


class StopSignals:
    """In `with`, on the main thread: the first SIGINT or SIGTERM is only noted, the second raises KeyboardInterrupt.

    Attributes:
        received: The first one's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
