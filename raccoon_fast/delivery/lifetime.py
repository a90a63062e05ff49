"""Tracks objects that have threads: closes them before the process ends, and restarts them after a fork."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from raccoon_fast import forks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXIT_S", "began", "ended", "inherit", "made"]

_T = TypeVar("_T")
#: Seconds that all of them together have at the end of the process.
EXIT_S = 5.0


class _Forked(Protocol):
    def _after_fork(self) -> None:
        """In the child: forget everything of the parent. Must not close, wait or log."""


class _Threaded(_Forked, Protocol):
    def _begin_close(self, timeout_s: float) -> Callable[[], object]:
        """Begin to close without waiting; returns a function that waits for the end, within the timeout."""


_all: weakref.WeakSet[_Forked] = weakref.WeakSet()
# Strong references: an unreferenced producer may still have events to deliver.
_open: set[_Threaded] = set()
_inherited: list[Any] = []
_finalized_pid = 0


def made(one: _Forked) -> None:
    """Register a new object for forked children."""
    _all.add(one)


def began(one: _Threaded) -> None:
    """Register an object with a thread, to close it at the end of the process."""
    global _finalized_pid
    _open.add(one)
    if _finalized_pid != os.getpid():
        _finalized_pid = os.getpid()
        # A process forked by multiprocessing runs multiprocessing's finalizers at its end, but not atexit.
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:
            multiprocessing.Finalize(None, _close_all, exitpriority=0)


def ended(one: _Threaded) -> None:
    """The object is closed: forget it."""
    _open.discard(one)


def inherit(*what: object) -> None:
    """Keep an object that a forked child shares with its parent: it must not be closed or even freed there."""
    _inherited.extend(what)


def _close_all() -> None:
    """Close all at the same time, within one deadline; errors and waits of one do not affect the others."""
    forks.check()
    deadline_s = time.monotonic() + EXIT_S
    waits = [_guarded(functools.partial(_begin_close, one, deadline_s)) for one in [*_open]]
    for wait in waits:
        if wait is not None:
            _guarded(wait)


def _begin_close(one: _Threaded, deadline_s: float) -> Callable[[], object]:
    return one._begin_close(max(0.0, deadline_s - time.monotonic()))  # noqa: SLF001 - each class's own half


def _guarded(step: Callable[[], _T]) -> _T | None:
    try:
        return step()
    except BaseException:  # noqa: BLE001 - a Ctrl-C as well: it ends one wait, and the others are closed all the same
        return None


def _after_fork_in_child() -> None:
    _open.clear()
    for one in [*_all]:
        one._after_fork()  # noqa: SLF001 - each class's own half


atexit.register(_close_all)
forks.in_child(_after_fork_in_child)
