"""An event loop on a thread of its own, for callers without one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from raccoon_fast.errors import ClientClosedError
from raccoon_fast.threads import new_future, new_lock, new_thread

if sys.platform != "win32":
    import uvloop

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Coroutine

    from raccoon_fast.logs import Log

__all__ = ["LoopThread", "new_event_loop"]

_T = TypeVar("_T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop where there is uvloop (not on Windows), asyncio's own otherwise."""
    if sys.platform != "win32":
        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


class LoopThread:
    """Runs coroutines for other threads.

    The loop and all that lives on it belong to this daemon thread; `submit` and `stop` are for all others.

    Args:
        logger: Told of exceptions nobody else handled.

    Raises:
        RuntimeError: No thread can be started, as at interpreter shutdown.
    """

    def __init__(self, logger: Log) -> None:
        self._logger = logger
        self._lock = new_lock()
        self._stopped = False
        self.loop = new_event_loop()
        self.loop.set_exception_handler(self._unhandled)
        self._thread = new_thread(self._run, "raccoon_fast-loop")
        try:
            self._thread.start()
        except BaseException:
            self.loop.close()
            raise

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Run a coroutine on the loop; cancelling the future cancels it there.

        Raises:
            ClientClosedError: The thread was stopped. Whatever was submitted before that is settled.
        """
        future = new_future()
        try:
            with self._lock:
                if not self._stopped:
                    self.loop.call_soon_threadsafe(self._begin, coroutine, future)
                    return future
        except BaseException:
            future.cancel()  # a Ctrl-C: it may run already, and nobody is given what would cancel it
            raise
        coroutine.close()
        raise ClientClosedError("the client was closed")

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine of a few steps, and wait for it as for a lock: no greenlet has its turn meanwhile."""
        done = new_lock()
        done.acquire()
        future = self.submit(coroutine)
        future.add_done_callback(lambda _: done.release())
        done.acquire()
        return future.result(0)

    def stop(self, timeout_s: float) -> None:
        """Cancel what runs and end the thread, waiting at most `timeout_s`. Idempotent."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self.loop.call_soon_threadsafe(self.loop.stop)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _begin(self, coroutine: Coroutine[Any, Any, _T], future: concurrent.futures.Future[_T]) -> None:
        task = self.loop.create_task(coroutine)
        task.add_done_callback(functools.partial(_settle, future))
        future.add_done_callback(functools.partial(self._cancel, task))

    def _cancel(self, task: asyncio.Task[_T], future: concurrent.futures.Future[_T]) -> None:
        if future.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the task ended with it
                self.loop.call_soon_threadsafe(task.cancel)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            # What was submitted in the last moment begins: cancelled before that, it could not say how it ended.
            self.loop.run_until_complete(asyncio.sleep(0))
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._logger.error("unexpected: %s: %r", context.get("message"), context.get("exception"))


def _settle(future: concurrent.futures.Future[_T], task: asyncio.Task[_T]) -> None:
    error = None
    if task.cancelled():
        future.cancel()
    else:
        error = task.exception()  # also where nobody wants it any more, or asyncio would complain of that
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())
