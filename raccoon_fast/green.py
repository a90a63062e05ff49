"""The classes that raccoon_fast.threads uses under gevent's monkey patching."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
from gevent.monkey import get_original

from raccoon_fast.threads import Condition, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.threads import Wait

__all__ = ["Queue", "new_lock", "new_rlock", "new_thread", "new_wait"]

new_lock: Callable[[], Any] = get_original("_thread", "allocate_lock")
new_rlock: Callable[[], Any] = get_original("_thread", "RLock")
_start_new_thread = get_original("_thread", "start_new_thread")
_get_ident = get_original("_thread", "get_ident")
_this_thread = get_original("_thread", "_local")()


class Thread:
    """See raccoon_fast.threads.Thread."""

    def __init__(self, target: Callable[[], None]) -> None:
        self._target = target
        self._ident = 0
        self._ended = Event()

    def start(self) -> None:
        """Run the target."""
        # A thread that uses a socket creates a hub. Two threads that create theirs at the same time may deadlock in
        # imports, so this thread creates its own first.
        gevent.get_hub()
        _start_new_thread(self._run_here, ())

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread's end. Other greenlets run meanwhile."""
        self._ended.wait(timeout)

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return bool(self._ident == _get_ident())

    def _run_here(self) -> None:
        _this_thread.is_ours = True
        self._ident = _get_ident()
        self._run()

    def _run(self) -> None:
        try:
            self._target()
        except BaseException:  # noqa: BLE001 - no caller would see it
            sys.excepthook(*sys.exc_info())
        finally:
            self._ended.set()


class _GreenThread(Thread):
    """A greenlet on the thread that starts it; an OS thread if that thread runs no greenlets."""

    def __init__(self, target: Callable[[], None]) -> None:
        super().__init__(target)
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        if getattr(_this_thread, "is_ours", False):
            super().start()  # our own threads run no greenlets
        else:
            self._greenlet = gevent.spawn(self._run_green)

    def _run_green(self) -> None:
        # A greenlet returns to its parent when it ends. If a signal handler has started this one while gevent created
        # the thread's hub, the parent is a second hub, which gevent has replaced and which never runs.
        gevent.getcurrent().parent = gevent.get_hub()
        self._run()

    def is_current(self) -> bool:
        return super().is_current() or (self._greenlet is not None and self._greenlet is gevent.getcurrent())


def new_thread(target: Callable[[], None], *, may_be_green: bool) -> Thread:
    """See raccoon_fast.threads."""
    return _GreenThread(target) if may_be_green else Thread(target)


def new_wait(keeps_hub: bool) -> Wait:
    """See raccoon_fast.threads."""
    return _NativeWait() if getattr(_this_thread, "is_ours", False) else _GreenWait(keeps_hub)


class _GreenWait:
    """A wait of one greenlet: its hub runs other greenlets, and any thread can wake it."""

    def __init__(self, keeps_hub: bool) -> None:
        self._event = gevent.event.Event()
        watcher = gevent.get_hub().loop.async_(ref=keeps_hub)
        watcher.start(self._event.set)
        # Either `end` takes the watcher, to send, or the wait takes it, to close: sending to a closed watcher is not
        # allowed.
        self._watcher = deque([watcher])
        self._sent: Any = None

    def wait(self, timeout_s: float | None) -> bool:
        was_told = False
        try:
            was_told = timeout_s != 0 and bool(self._event.wait(timeout_s))
        finally:
            try:
                watcher = self._watcher.pop()
            except IndexError:
                self._event.wait()  # `end` is about to send it
                watcher, was_told = self._sent, True
            watcher.close()
        return was_told

    def end(self, told: object = None, /) -> None:
        try:
            watcher = self._watcher.pop()
        except IndexError:
            return  # the wait has ended
        self._sent = watcher
        watcher.send()


class _NativeWait:
    """A wait of one of the package's own threads."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._lock.acquire()

    def wait(self, timeout_s: float | None) -> bool:
        return bool(self._lock.acquire(True, -1 if timeout_s is None else timeout_s))

    def end(self, told: object = None, /) -> None:
        self._lock.release()


class Queue:
    """Like queue.SimpleQueue. Its reader has nothing else to do, so the wait does not keep a hub alive."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._changed = Condition(keeps_hub=False)

    def put(self, item: Any) -> None:
        """Append an item."""
        self._items.append(item)
        self._changed.notify_all()

    def get(self) -> Any:
        """Wait for an item and take it."""
        self._changed.wait_for(lambda: self._items)
        return self._items.popleft()

    def empty(self) -> bool:
        """Whether the queue is empty."""
        return not self._items
