"""The thread that runs users' callbacks, so that none of them can hold up the event loop."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from raccoon_fast.threads import is_green, new_queue, new_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.logs import Log
    from raccoon_fast.threads import Thread

__all__ = ["CallbackThread"]


class CallbackThread:
    """Runs callbacks one after the other, on one daemon thread that the first of them starts.

    `submit` never blocks and may be called from any thread, also after `stop`: a callback is never lost. It has no
    lock: a thread runs callbacks while it holds the one `_vacancy`, and one that finds it taken ends.

    Args:
        logger: Told when a callback raises, whatever it raises; the next one is run all the same.
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
        self._vacancy = deque([None])
        self._thread: Thread | None = None
        self._starting: Thread | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the thread, if there is none.

        Called beforehand by whoever will have callbacks: at the interpreter's exit no thread can be started, and a
        greenlet runs among those of the thread that started it.

        Raises:
            RuntimeError: The system starts no thread.
        """
        if not self._vacancy or self._starting is not None:
            return
        thread = new_thread(lambda: self._run(thread), self._name, may_be_green=self._may_be_green)
        try:
            self._starting = thread
            thread.start()
        except BaseException:
            self._starting = None  # after a Ctrl-C it may run all the same
            raise

    def submit(self, callback: Callable[..., object], argument: Any) -> None:
        """Run `callback(argument)` after those submitted before."""
        self._queue.put((callback, argument))
        self.start()
        if self._stopped:
            self._queue.put(None)

    def is_current(self) -> bool:
        """Whether the caller is a callback."""
        thread = self._thread
        return thread is not None and thread.is_current()

    def stop(self, timeout_s: float) -> None:
        """End the thread once it has run what was submitted, waiting for that at most `timeout_s`."""
        self._stopped = True
        deadline_s = time.monotonic() + timeout_s
        while (thread := self._thread or self._starting) is not None:
            self._queue.put(None)
            left_s = deadline_s - time.monotonic()
            if thread.is_current() or left_s < 0:
                return
            thread.join(left_s)

    def _take_vacancy(self) -> bool:
        try:
            self._vacancy.pop()
        except IndexError:
            return False
        return True

    def _run(self, thread: Thread) -> None:
        if not self._take_vacancy():
            return
        self._thread, self._starting = thread, None
        while True:
            item = self._queue.get()
            if item is None:
                # Whoever submits puts its callback into the queue and looks for the vacancy then: one of the two sees
                # what the other did.
                self._thread = None
                self._vacancy.append(None)
                if self._queue.empty() or not self._take_vacancy():
                    return
                self._thread = thread
                continue
            callback, argument = item
            try:
                callback(argument)
            except BaseException as error:  # noqa: BLE001 - a user's callback must not hurt the others, nor end the thread
                self._logger.error("the callback %r raised %r", callback, error)
