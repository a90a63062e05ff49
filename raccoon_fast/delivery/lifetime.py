"""What has a thread, over the life of its process: closed before the process ends, begun anew after a fork."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Any, Protocol

__all__ = ["began", "ended", "inherit", "made"]


class _Threaded(Protocol):
    def close(self) -> object:
        """Bounded in time, and idempotent."""

    def _after_fork(self) -> None:
        """In the child: forget what is the parent's. Must not close, wait or log."""


_all: weakref.WeakSet[_Threaded] = weakref.WeakSet()
# Strong references: a producer nobody holds any more may still have events to deliver.
_open: set[_Threaded] = set()
_inherited: list[Any] = []
_finalized_pid = 0


def made(one: _Threaded) -> None:
    """It exists, and has no thread yet."""
    _all.add(one)


def began(one: _Threaded) -> None:
    """It has a thread: the end of the process closes it."""
    global _finalized_pid
    _open.add(one)
    if _finalized_pid != os.getpid():
        _finalized_pid = os.getpid()
        # A process that multiprocessing forked runs its finalizers at its end, and nothing of atexit's.
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:
            multiprocessing.Finalize(None, _close_all, exitpriority=0)


def ended(one: _Threaded) -> None:
    """It is closed."""
    _open.discard(one)


def inherit(*what: object) -> None:
    """Keep what a forked child shares with its parent: it must not be closed there, nor even be freed."""
    _inherited.extend(what)


def _close_all() -> None:
    for one in [*_open]:
        one.close()


def _after_fork_in_child() -> None:
    _open.clear()
    for one in [*_all]:
        one._after_fork()  # noqa: SLF001 - each class's own half of this


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
