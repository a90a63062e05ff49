"""How the command ends: exit codes, signals, and when it gives up on a server."""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GIVE_UP_AFTER", "GRACE_S", "PATIENCE_S", "Exit", "StopSignals", "UsageError"]

#: Failed requests in a row: if the server is down or refuses everything, reading a large file would be pointless.
GIVE_UP_AFTER = 16
#: Seconds that requests in flight have after a Ctrl-C.
GRACE_S = 5.0
#: Seconds after which a server that accepts nothing is given up.
PATIENCE_S = 20.0


class Exit(enum.IntEnum):
    """The exit codes; after a signal the code is 128 plus the signal's number."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 128 + signal.SIGINT


class UsageError(Exception):
    """The command cannot do what the user asked; the message says what to do instead."""


class StopSignals:
    """In `with`, on the main thread: notes the first SIGINT or SIGTERM; the second raises KeyboardInterrupt.

    Attributes:
        received: The number of the first signal, or None.
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
