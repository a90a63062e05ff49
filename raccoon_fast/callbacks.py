"""Runs users' callbacks on a separate thread, so that they cannot block the event loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from raccoon_fast.threads import is_green, new_queue, new_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.logs import Log
    from raccoon_fast.threads import Thread

__all__ = ["CallbackThread"]


class CallbackThread:
    """Runs callbacks one after the other, on one daemon thread that the first callback starts.

    `submit` never blocks and may be called from any thread, even after `stop`: no callback is lost. There is no
    lock: a thread runs callbacks while it is the only entry of `_running`; a thread that finds another one there ends.

    Args:
        logger: Logs any exception of a callback; the next callback still runs.
        name: The name of the thread.
        blocks: Whether the callbacks may block an OS thread; users' callbacks run on a greenlet if
            gevent has patched threads.
    """

    def __init__(self, logger: Log, name: str = "raccoon_fast-callbacks", *, blocks: bool = False) -> None:
        self._logger = logger
        self._name = name
        # A greenlet must not wait in a queue that was created before gevent's patching.
        self._may_be_green = is_green() and not blocks
        self._queue = new_queue()
        # At most one entry, under the key True: dict.setdefault makes two threads agree on it.
        self._running: dict[bool, Thread] = {}
        self._starting: Thread | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the thread, if it does not run.

        Call it before submitting callbacks: at the interpreter's exit no thread can be started, and a
        greenlet runs on the thread that started it.

        Raises:
            RuntimeError: The system cannot start a thread.
        """
        if self._running or self._starting is not None:
            return
        thread = new_thread(lambda: self._run(thread), self._name, may_be_green=self._may_be_green)
        try:
            self._starting = thread
            thread.start()
        except BaseException:
            self._starting = None  # after a Ctrl-C it may run anyway
            raise

    def submit(self, callback: Callable[..., object], argument: Any) -> None:
        """Run `callback(argument)` after the callbacks submitted before."""
        self._queue.put((callback, argument))
        self.start()
        if self._stopped:
            self._queue.put(None)

    def is_current(self) -> bool:
        """Whether the caller runs in a callback."""
        thread = self._running.get(True)
        return thread is not None and thread.is_current()

    def stop(self, timeout_s: float) -> None:
        """End the thread once it has run the submitted callbacks; wait for at most `timeout_s`."""
        self._stopped = True
        deadline_s = time.monotonic() + timeout_s
        while (thread := self._running.get(True) or self._starting) is not None:
            self._queue.put(None)
            left_s = deadline_s - time.monotonic()
            if thread.is_current() or left_s < 0:
                return
            thread.join(left_s)

    def _run(self, thread: Thread) -> None:
        if self._running.setdefault(True, thread) is not thread:
            if self._starting is thread:  # or nobody could start a thread any more
                self._starting = None
            return
        self._starting = None
        while True:
            item = self._queue.get()
            if item is None:
                # `submit` puts its callback into the queue first and then looks for a thread: one of the two threads
                # sees the change of the other.
                self._running.pop(True)
                if self._queue.empty() or self._running.setdefault(True, thread) is not thread:
                    return
                continue
            callback, argument = item
            try:
                callback(argument)
            except BaseException as error:  # noqa: BLE001 - a user's callback must not hurt the others, nor end the thread
                self._logger.error("the callback %r raised %r", callback, error)
