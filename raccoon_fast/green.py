"""What raccoon_fast.threads hands out under gevent's monkey patching."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
from gevent.monkey import get_original

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Condition", "Event", "Queue", "new_lock", "new_rlock", "new_thread"]

new_lock: Callable[[], Any] = get_original("_thread", "allocate_lock")
new_rlock: Callable[[], Any] = get_original("_thread", "RLock")
_start_new_thread = get_original("_thread", "start_new_thread")
_this_thread = get_original("_thread", "_local")()


class Thread:
    """As threading.Thread, a daemon of the system."""

    def __init__(self, target: Callable[[], None]) -> None:
        self._target = target
        self._ended = Event()

    def start(self) -> None:
        """Run its target."""
        _start_new_thread(self._run_here, ())

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, while other greenlets run."""
        self._ended.wait(timeout)

    def _run_here(self) -> None:
        _this_thread.is_ours = True
        self._run()

    def _run(self) -> None:
        try:
            self._target()
        except BaseException:  # noqa: BLE001 - nobody is above to see it
            sys.excepthook(*sys.exc_info())
        finally:
            self._ended.set()


class _GreenThread(Thread):
    """A greenlet among those of the thread that starts it, if there are any."""

    def start(self) -> None:
        if getattr(_this_thread, "is_ours", False):
            super().start()  # our own threads run no greenlets
        else:
            gevent.spawn(self._run)


def new_thread(target: Callable[[], None], *, may_be_green: bool) -> Thread:
    """See raccoon_fast.threads."""
    return _GreenThread(target) if may_be_green else Thread(target)


class _GreenWait:
    """A wait of one greenlet: its hub runs the others, and is woken by any thread."""

    def __init__(self, keeps_hub: bool) -> None:
        self._event = gevent.event.Event()
        self._closing = new_lock()  # to send to a watcher that is closed is not allowed
        self._watcher: Any = gevent.get_hub().loop.async_(ref=keeps_hub)
        self._watcher.start(self._event.set)

    def wait(self, timeout: float | None) -> None:
        try:
            self._event.wait(timeout)
        finally:
            with self._closing:
                watcher, self._watcher = self._watcher, None
            watcher.close()

    def end(self) -> None:
        with self._closing:
            if self._watcher is not None:
                self._watcher.send()


class _NativeWait:
    """A wait of one of our own threads."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._lock.acquire()

    def wait(self, timeout: float | None) -> None:
        self._lock.acquire(True, -1 if timeout is None else timeout)

    def end(self) -> None:
        self._lock.release()


class Condition:
    """As threading.Condition; greenlets of any hub may wait, and our own threads.

    Args:
        keeps_hub: Whether a hub has something to do while a greenlet waits. Where nothing else is left, `gevent.wait()`
            returns in spite of waits that do not count.
    """

    def __init__(self, *, keeps_hub: bool = True) -> None:
        self._keeps_hub = keeps_hub
        self._waits: deque[_GreenWait | _NativeWait] = deque()
        self._lock = new_lock()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock until told, for at most so many seconds. Returns whether it was told."""
        wait = _NativeWait() if getattr(_this_thread, "is_ours", False) else _GreenWait(self._keeps_hub)
        self._waits.append(wait)
        self._lock.release()
        try:
            wait.wait(timeout)
        finally:
            self._lock.acquire()
            was_told = wait not in self._waits
            if not was_told:
                self._waits.remove(wait)
        return was_told

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate` holds, for at most so many seconds. Returns what it said last."""
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while not (answer := predicate()):
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
        return answer

    def notify(self, n: int = 1) -> None:
        """Tell `n` of those that wait."""
        for _ in range(min(n, len(self._waits))):
            self._waits.popleft().end()

    def notify_all(self) -> None:
        """Tell all that wait."""
        self.notify(len(self._waits))


class Event:
    """As threading.Event."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._is_set = False

    def set(self) -> None:
        """Let all go on that wait."""
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for at most so many seconds. Returns whether it is."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._is_set, timeout))


class Queue:
    """As queue.SimpleQueue. Whoever takes from it has nothing else to do: the wait does not keep a hub."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._changed = Condition(keeps_hub=False)

    def put(self, item: Any) -> None:
        """Append an item."""
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def get(self) -> Any:
        """Wait for an item and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            return self._items.popleft()

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._items
