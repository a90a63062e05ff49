"""The thread that runs users' callbacks, so that none of them can hold up the event loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from raccoon_fast.threads import is_green, new_lock, new_queue, new_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.logs import Log
    from raccoon_fast.threads import Thread

__all__ = ["CallbackThread"]


class CallbackThread:
    """Runs callbacks one after the other, on one daemon thread that the first of them starts.

    `submit` never blocks and may be called from any thread, also after `stop`: a callback is never lost.

    Args:
        logger: Told when a callback raises; the next one is run all the same.
        name: The thread's.
        blocks: Whether the callbacks block as only a thread of the system may; those of users run on a greenlet where
            gevent has made threads greenlets.
    """

    def __init__(self, logger: Log, name: str = "raccoon_fast-callbacks", *, blocks: bool = False) -> None:
        self._logger = logger
        self._name = name
        # A greenlet must not wait in a queue that was made before gevent patched.
        self._may_be_green = is_green() and not blocks
        self._queue = new_queue()
        self._lock = new_lock()
        self._thread: Thread | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the thread, if there is none.

        Called beforehand by whoever will have callbacks: at the interpreter's exit no thread can be started, and a
        greenlet runs among those of the thread that started it.
        """
        with self._lock:
            if self._thread is None:
                thread = new_thread(self._run, self._name, may_be_green=self._may_be_green)
                thread.start()
                self._thread = thread

    def submit(self, callback: Callable[..., object], argument: Any) -> None:
        """Run `callback(argument)` after those submitted before."""
        self._queue.put((callback, argument))
        self.start()
        if self._stopped:
            self._queue.put(None)

    def stop(self, timeout_s: float) -> None:
        """End the thread once it has run what was submitted, waiting for that at most `timeout_s`."""
        self._stopped = True
        thread = self._thread
        if thread is None:
            return
        self._queue.put(None)
        if thread is not threading.current_thread():
            thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None  # what is submitted from here on starts another
                        return
                continue
            callback, argument = item
            try:
                callback(argument)
            except Exception as error:  # noqa: BLE001 - a user's callback must not hurt the others
                self._logger.error("a callback failed: %r raised %r", callback, error)
