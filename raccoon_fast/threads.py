"""Threads, and what passes between them, that work under gevent's monkey patching as well.

There a thread is a greenlet, which would keep its event loop, or the disk it waits for, between all other greenlets and
their turn. So these are threads of the system, what they share with their users are real locks, and a user who waits
for them waits as a greenlet does. Without gevent all of it is what the standard library has.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

__all__ = [
    "Thread",
    "is_green",
    "new_condition",
    "new_event",
    "new_future",
    "new_lock",
    "new_queue",
    "new_rlock",
    "new_thread",
    "result_of",
    "wait_for",
]

_T_co = TypeVar("_T_co", covariant=True)
# The longest that a Ctrl-C may go unnoticed.
_SLICE_S = 1.0


class Thread(Protocol):
    """What is used of a threading.Thread."""

    def start(self) -> None:
        """Run its target in it. RuntimeError where no thread can be started."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most so many seconds."""


class Awaited(Protocol[_T_co]):
    """What is used of a concurrent.futures.Future."""

    def done(self) -> bool:
        """Whether it is settled."""

    def result(self, timeout: float | None = None) -> _T_co:
        """Wait for it; what it was settled with."""

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for it; the failure it was settled with, if it was one."""


def is_green() -> bool:
    """Whether gevent has made threads greenlets (`gevent.monkey.patch_all`)."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_object_patched("_thread", "start_new_thread"))


def new_thread(target: Callable[[], None], name: str, *, may_be_green: bool = False) -> Thread:
    """A daemon thread of the system, not started.

    Args:
        target: Run in it.
        name: For whoever looks at a list of threads.
        may_be_green: Whether it only runs what its users may run themselves: then it is a greenlet where theirs are.
    """
    if is_green():
        green: Thread = _green().new_thread(target, may_be_green=may_be_green)
        return green
    return threading.Thread(target=target, name=name, daemon=True)


def new_lock() -> threading.Lock:
    """A lock to be held for moments: whoever holds it must not wait for anything."""
    return _green().new_lock() if is_green() else threading.Lock()


def new_rlock() -> threading.RLock:
    """As new_lock, and its holder may take it again."""
    return _green().new_rlock() if is_green() else threading.RLock()


def new_condition() -> threading.Condition:
    """As threading.Condition, on a lock that is not for holding it twice."""
    return _green().Condition() if is_green() else threading.Condition()


def new_event() -> threading.Event:
    """As threading.Event."""
    return _green().Event() if is_green() else threading.Event()


def new_queue() -> queue.SimpleQueue[Any]:
    """As queue.SimpleQueue; one thread takes from it."""
    return _green().Queue() if is_green() else queue.SimpleQueue()


def new_future() -> concurrent.futures.Future[Any]:
    """As concurrent.futures.Future."""
    import concurrent.futures  # which loads logging

    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    if is_green():
        future._condition = _green().Condition()  # noqa: SLF001 - all its waits and wake-ups go over this
    return future


def wait_for(future: Awaited[object], timeout_s: float | None = None) -> None:
    """Wait until it is settled, in slices: CPython does not notice a Ctrl-C that comes just as a wait begins.

    Raises:
        concurrent.futures.TimeoutError: It was not, in so many seconds; None waits without a bound.
    """
    import concurrent.futures  # as above

    end_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while not future.done():
        left_s = max(0.0, end_s - time.monotonic())
        try:
            future.exception(min(_SLICE_S, left_s))
        except concurrent.futures.CancelledError:
            return
        except concurrent.futures.TimeoutError:
            if left_s <= _SLICE_S:
                raise


def result_of(future: Awaited[_T_co], timeout_s: float | None = None) -> _T_co:
    """`future.result(timeout_s)`, waited for as `wait_for` does."""
    try:
        wait_for(future, timeout_s)
        return future.result(0)
    finally:
        del future  # or a failure would lead to this frame, and that to the failure


def _green() -> Any:
    from raccoon_fast import green

    return green
