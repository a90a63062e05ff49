"""Threads and their waits: no lock is held while Python code can run.

A finalizer or a signal handler may run between any two steps of Python code, even in a thread that holds a lock,
and may use the same producer. Therefore a condition here has no lock: a waiter enters a deque first and checks the
predicate afterwards; a thread that changes state wakes the deque afterwards; each step on a deque is atomic.

The same classes work under gevent's monkey patching. There a thread of the standard library is a greenlet: its
event loop, or a wait for the disk, would block all other greenlets. So these classes use OS threads,
and a greenlet that waits for them lets the other greenlets run.
"""

from __future__ import annotations

import _thread
import contextlib
import itertools
import queue
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "SLICE_S",
    "Condition",
    "Event",
    "Tally",
    "Thread",
    "at_once",
    "is_green",
    "is_main",
    "new_lock",
    "new_queue",
    "new_rlock",
    "new_thread",
    "new_wait",
    "require_threads",
    "snapshot",
]

_T = TypeVar("_T")
#: The longest uninterrupted wait in seconds. CPython misses a Ctrl-C that arrives just as a wait starts, and notices it
#: after this time.
SLICE_S = 1.0


class Thread(Protocol):
    """A daemon thread."""

    def start(self) -> None:
        """Run the target. Raises RuntimeError if the system cannot start a thread."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread's end, at most this many seconds."""

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""


class Wait(Protocol):
    """One wait of one thread or greenlet."""

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for `end`, at most this long; None is unlimited. Called once. Returns whether `end` was called."""

    def end(self, told: object = None, /) -> None:
        """Wake the waiter. Called once, by any thread. The argument is ignored, so that this can be a callback."""


def at_once(*calls: Iterable[object]) -> None:
    """Run these iterators of calls to their end, entirely in C.

    A signal handler or another thread runs before the first call or after the last, so that an exception of a
    handler, such as KeyboardInterrupt, never interrupts a change halfway. The first call that raises ends the run.

    Args:
        calls: For example map(deque.append, (one, other), (1, 2)).
    """
    deque(itertools.chain.from_iterable(calls), maxlen=0)


def snapshot(items: Iterable[_T]) -> list[_T]:
    """Copy a deque or another collection, even if other threads change it.

    Without a GIL they may change it during the copy, which is then repeated.
    """
    while True:
        with contextlib.suppress(RuntimeError):
            return [*items]


def is_green() -> bool:
    """Whether gevent has patched threads into greenlets (`gevent.monkey.patch_all`)."""
    # `in` takes no lock, unlike `get`. Without a GIL all threads would wait for it here, and a forked child could find
    # it taken.
    if "gevent.monkey" not in sys.modules:
        return False
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_object_patched("_thread", "start_new_thread"))


def is_main() -> bool:
    """Whether the caller runs on the main thread, where signal handlers run and sys.exit() ends the program."""
    return threading.get_ident() == threading.main_thread().ident


def require_threads() -> None:
    """Check that threads run.

    Raises:
        RuntimeError: Under uWSGI without `--enable-threads`, where threads can be started but never run.
    """
    options = getattr(sys.modules.get("uwsgi"), "opt", None)
    if isinstance(options, dict) and not any(map(_is_on, map(options.get, ("enable-threads", "threads")))):
        raise RuntimeError(
            "uWSGI runs no Python threads, but a thread delivers the events: start uWSGI with --enable-threads "
            "(enable-threads = true)"
        )


def _is_on(value: object) -> bool:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return value is not None and text.lower() not in ("false", "off", "no", "n", "0")


def new_thread(target: Callable[[], None], name: str, *, may_be_green: bool = False) -> Thread:
    """Return a daemon OS thread that is not started yet.

    Args:
        target: The function to run.
        name: Its name in `threading.enumerate()`.
        may_be_green: Whether it only runs code that users could run themselves; then it is a greenlet if threads are
            patched.
    """
    if is_green():
        green: Thread = _green().new_thread(target, may_be_green=may_be_green)
        return green
    return _NativeThread(target, name)


def new_lock() -> threading.Lock:
    """Return a lock for very short sections: its holder must not wait for anything."""
    return _green().new_lock() if is_green() else threading.Lock()


def new_rlock() -> threading.RLock:
    """Like new_lock, but its holder may acquire it again."""
    return _green().new_rlock() if is_green() else threading.RLock()


def new_queue() -> queue.SimpleQueue[Any]:
    """Like queue.SimpleQueue, for one reader."""
    return _green().Queue() if is_green() else queue.SimpleQueue()


def new_wait(*, keeps_hub: bool = True) -> Wait:
    """Return a wait that has not started.

    Args:
        keeps_hub: Whether the wait keeps gevent's hub alive. If nothing else does,
            `gevent.wait()` returns although such a wait is open.
    """
    if is_green():
        green: Wait = _green().new_wait(keeps_hub)
        return green
    return _NativeWait()


class Condition:
    """Like threading.Condition, but without a lock: change the state of the predicate, then notify."""

    __slots__ = ("_keeps_hub", "_waits")

    def __init__(self, *, keeps_hub: bool = True) -> None:
        self._keeps_hub = keeps_hub
        self._waits: deque[Wait] = deque()

    @property
    def waiting(self) -> int:
        """How many threads and greenlets wait."""
        return len(self._waits)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate` is true, at most this many seconds. Returns its last result."""
        deadline_s = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            if answer := predicate():
                return answer
            wait = new_wait(keeps_hub=self._keeps_hub)
            self._waits.append(wait)
            try:
                # A thread that changed the state before this check may have missed this wait; one that changes it later
                # sees it.
                left_s = 0.0 if (answer := predicate()) else max(0.0, deadline_s - time.monotonic())
                # A timer would keep the hub alive.
                wait.wait(min(left_s, SLICE_S) if self._keeps_hub or left_s <= 0.0 else None)
            finally:
                with contextlib.suppress(ValueError):  # it was woken
                    self._waits.remove(wait)
            if left_s <= 0.0:
                return answer

    def notify_all(self) -> None:
        """Wake all waiting threads and greenlets."""
        while self._waits:
            try:
                wait = self._waits.popleft()
            except IndexError:  # another thread has taken it
                return
            wait.end()


class Event:
    """Like threading.Event, but without a lock."""

    __slots__ = ("_changed", "_is_set")

    def __init__(self) -> None:
        self._changed = Condition()
        self._is_set = False

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._is_set

    def set(self) -> None:
        """Wake all waiting threads."""
        self._is_set = True
        self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most this many seconds. Returns whether it is set."""
        return self._is_set or bool(self._changed.wait_for(self.is_set, timeout))


class Tally:
    """A counter that any thread may increment, without a lock.

    `+= 1` takes three steps, and another thread may run between them; `add` takes one. While several threads read
    `value` at the same time, each result may differ by the number of these threads.
    """

    __slots__ = ("_added", "_looks")

    def __init__(self) -> None:
        self._added = itertools.count()
        self._looks = itertools.count()

    def add(self) -> None:
        """Add one."""
        next(self._added)

    @property
    def value(self) -> int:
        """How often `add` was called."""
        looks = next(self._looks)  # each look also takes a number from `_added`
        return next(self._added) - looks


class _NativeWait:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def wait(self, timeout_s: float | None) -> bool:
        # This waits in C. There a signal handler runs between two tries, when nothing is held.
        return self._lock.acquire(True, -1 if timeout_s is None else timeout_s)

    def end(self, told: object = None, /) -> None:
        self._lock.release()


class _NativeThread:
    """A thread that starts without a lock, unlike threading.Thread.

    A finalizer that interrupts `threading.Thread.start` would deadlock in starting another one.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._ident = 0
        self._ended = Event()

    def start(self) -> None:
        _thread.start_new_thread(self._run, ())

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def is_current(self) -> bool:
        return self._ident == _thread.get_ident()

    def _run(self) -> None:
        self._ident = _thread.get_ident()
        try:
            threading.current_thread().name = self._name  # this enters it into threading's list
            self._target()
        except BaseException:  # noqa: BLE001 - no caller would see it
            sys.excepthook(*sys.exc_info())
        finally:
            threading._active.pop(self._ident, None)  # type: ignore[attr-defined]  # noqa: SLF001 - Python < 3.13 keeps it
            self._ended.set()


def _green() -> Any:
    from raccoon_fast import green

    return green
