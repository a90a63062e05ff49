"""Lets forked children start afresh, no matter which code forked them.

Python's fork hooks (`os.register_at_fork`) run only for forks that Python makes. A fork made in C, such as that of
uWSGI by default, runs none of them: the child then has its parent's queues, locks and connections, but none of its
threads. So everything that must start afresh registers a hook here. Python's fork hook calls it; if that did not run,
the first `check` in the child does.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PAGE", "check", "in_child"]

# Linux 4.14 and later, madvise(2): the child finds zeros in the page.
_MADV_WIPEONFORK = 18
# How long to wait for another thread that is starting afresh, which takes almost no time.
_PATIENCE_S = 5.0


def _new_page() -> mmap.mmap | bytearray:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # another system, or an older Linux
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
        return page
    return bytearray(1)


#: A page whose first byte is 1, or 0 in a forked child that has not started afresh. Reading the byte is cheap enough
#: for each event, while `check` costs a system call. On systems that cannot wipe a page the byte is always 1.
PAGE = _new_page()
PAGE[0] = 1
#: Whether that byte detects every fork.
IS_WIPED = isinstance(PAGE, mmap.mmap)

#: Whether this process was just forked by Python, so that it has a single thread.
is_alone = False
_hooks: list[Callable[[], object]] = []
_pid = _beginning = os.getpid()
_locks: dict[int, threading.RLock] = {}


def in_child(hook: Callable[[], object]) -> None:
    """Call `hook` in each forked child before anything else happens there. The hook must not wait or log."""
    _hooks.append(hook)


def check() -> None:
    """Start afresh if this process is a fork that has not done so yet. Thread-safe."""
    if os.getpid() != _pid:
        _begin_anew()


def _begin_anew() -> None:
    global _pid, _beginning
    pid = os.getpid()
    lock = _locks.setdefault(pid, threading.RLock())
    lock.acquire(timeout=_PATIENCE_S)
    try:
        if pid in (_pid, _beginning):
            return  # another thread has done it; or a finalizer calls this while this thread does it
        _beginning = pid
        for hook in _hooks:
            hook()
        PAGE[0] = 1
        _pid = pid
    finally:
        with contextlib.suppress(RuntimeError):  # not acquired in time
            lock.release()


def _begin_alone() -> None:
    global is_alone
    is_alone = True
    try:
        _begin_anew()
    finally:
        is_alone = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_alone)
