"""How the command ends: its exit codes, and the signals that end it early."""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Exit", "StopSignals", "UsageError"]


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
