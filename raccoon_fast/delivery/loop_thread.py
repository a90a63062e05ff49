"""An event loop on a separate thread, for callers without a loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from raccoon_fast.delivery.promise import Promise
from raccoon_fast.errors import ClientClosedError
from raccoon_fast.threads import Event, new_thread

if sys.platform != "win32":
    import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from raccoon_fast.logs import Log
    from raccoon_fast.threads import Thread

__all__ = ["HELD_UP", "Call", "LoopThread", "new_event_loop"]

#: Why a loop may not answer in time.
HELD_UP = "the event loop is blocked: check that auth=, logger= and stats= do not block"

_T = TypeVar("_T")
# A loop is not run again after so many failures in a row, each within this time.
_MAX_FAILURES = 20
_FAILS_S = 0.1
# How long the thread waits at its end for tasks that it has cancelled.
_CANCEL_S = 1.0


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop if uvloop is installed (not on Windows), otherwise asyncio's own."""
    if sys.platform != "win32":
        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


class Call(Promise[_T]):
    """The outcome of a coroutine on a LoopThread.

    The coroutine is created on that thread: Python warns about a coroutine that is created but never runs, for example
    after a Ctrl-C or the end of the loop.
    """

    __slots__ = ("_is_unwanted", "_loop", "_make", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        super().__init__()
        self._loop = loop
        self._make: Callable[[], Coroutine[Any, Any, _T]] | None = make
        self._task: asyncio.Task[_T] | None = None
        self._is_unwanted = False

    def cancel(self) -> None:
        """Cancel the coroutine soon; `result` then raises concurrent.futures.CancelledError."""
        self._is_unwanted = True
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the task has ended with it
            self._loop.call_soon_threadsafe(self._cancel)

    def begin(self) -> None:
        """Run it (called on the loop)."""
        make, self._make = self._make, None
        assert make is not None
        self._task = self._loop.create_task(make())
        self._task.add_done_callback(self._ended)
        self._cancel()

    def refuse(self) -> None:
        """Settle it, whether begun or not, because the loop is closed."""
        self._make = None
        self.set_exception(ClientClosedError("the client was closed"))

    def _cancel(self) -> None:
        if self._is_unwanted and self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[_T]) -> None:
        self._task = None
        if task.cancelled():
            self.set_exception(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())


class LoopThread:
    """Runs coroutines for other threads.

    The loop and everything on it belong to this daemon thread, which the first `submit` starts; `submit` and `stop`
    are for all other threads. There is no lock: submitted coroutines wait in a deque, from which each is taken once, to
    be run or to be refused. Exceptions on the thread, even SystemExit, are logged, and the loop continues.

    Args:
        logger: Logs unhandled exceptions.

    Attributes:
        at_end: Called once the loop is closed, by the thread that closed it; must not raise.
        is_over: Whether the thread has ended or is about to end: submitted coroutines no longer run.

    Raises:
        OSError: No descriptor is left for a loop.
    """

    def __init__(self, logger: Log) -> None:
        self.is_over = False
        self.at_end: Callable[[], object] | None = None
        self._logger = logger
        self._inbox: deque[Call[Any]] = deque()
        self._begun: set[Call[Any]] = set()
        # The thread that takes this item runs the loop, or closes it unused.
        self._vacancy = deque([None])
        self._thread: Thread | None = None
        self._ended = Event()
        self._is_stopped = False
        self._is_ending = False
        self.loop = new_event_loop()
        self.loop.set_exception_handler(self._unhandled)

    def submit(self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> Call[_T]:
        """Run a coroutine on the loop; cancelling the call cancels it there.

        Args:
            function: Called on the loop; returns the coroutine.
            arguments: What `function` is called with.

        Raises:
            ClientClosedError: The thread was stopped. Everything submitted before is settled.
            RuntimeError: The system cannot start a thread.
        """
        call = Call(self.loop, functools.partial(function, *arguments))
        try:
            self._inbox.append(call)
            with contextlib.suppress(RuntimeError):  # it is closed
                self.loop.call_soon_threadsafe(self._begin)
            self.start()
        except BaseException:
            if call in self._inbox:
                self._inbox.remove(call)
                call.refuse()
            else:  # after a Ctrl-C: it already runs, and no caller has the object to cancel it
                call.cancel()
            raise
        if self.is_over:
            self._refuse()
            if call.done() and isinstance(call.exception(0), ClientClosedError):
                call.result(0)
        return call

    def start(self) -> None:
        """Start the thread if it does not run. A second thread, after a Ctrl-C or beside another caller, ends at once.

        Raises:
            RuntimeError: The system cannot start a thread.
        """
        if self._vacancy:
            thread = new_thread(lambda: self._run(thread), "raccoon_fast-loop")
            thread.start()

    def is_current(self) -> bool:
        """Whether the caller runs on the loop."""
        return self._thread is not None and self._thread.is_current()

    def stop(self, timeout_s: float) -> None:
        """Cancel running coroutines and end the thread, waiting at most `timeout_s`. Idempotent."""
        self._is_stopped = True
        if not self._will_run() and self._take_vacancy():
            self._close()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.loop.stop)
        if not self.is_current():
            deadline_s = time.monotonic() + timeout_s
            if self._ended.wait(timeout_s) and (thread := self._thread) is not None:
                thread.join(max(0.0, deadline_s - time.monotonic()))

    def _will_run(self) -> bool:
        """Whether submitted coroutines are run yet."""
        if not self._inbox:
            return False
        try:
            self.start()
        except RuntimeError:  # no thread can be started: the call is refused
            return False
        return True

    def _take_vacancy(self) -> bool:
        try:
            self._vacancy.pop()
        except IndexError:
            return False
        return True

    def _begin(self) -> None:
        if self._is_ending:
            return  # it stays in the inbox, from which `_close` refuses it
        try:
            call = self._inbox.popleft()
        except IndexError:
            return
        self._begun.add(call)
        call.add_done_callback(self._begun.discard)
        call.begin()

    def _refuse(self) -> None:
        while self._inbox:
            try:
                call = self._inbox.popleft()
            except IndexError:  # another thread took it
                return
            call.refuse()

    def _run(self, thread: Thread) -> None:
        if not self._take_vacancy():
            return
        self._thread = thread
        asyncio.set_event_loop(self.loop)
        try:
            self._run_until_stopped()
            if self._is_stopped:
                self._end_tasks()
        except BaseException as error:  # noqa: BLE001 - no caller could catch it
            self._logger.error("the event loop's thread ended with %r", error)
        finally:
            asyncio.set_event_loop(None)
            self._close()

    def _run_until_stopped(self) -> None:
        failures = 0
        while not self._is_stopped and failures < _MAX_FAILURES:
            began_s = time.monotonic()
            try:
                self.loop.run_forever()
                if self._is_stopped:
                    return
                raised = "a call of stop()"
            except BaseException as error:  # noqa: BLE001 - nothing that runs on the loop may end it
                raised = repr(error)
            failures = failures + 1 if time.monotonic() - began_s < _FAILS_S else 1
            self._logger.error("the event loop was interrupted by %s, and continues", raised)

    def _end_tasks(self) -> None:
        """Cancel all tasks. A task created afterwards would never begin, because the loop is closed next."""
        self._run_for(asyncio.sleep(0))  # calls submitted before `stop` begin
        self._is_ending = True
        end_s = time.monotonic() + _CANCEL_S
        self._cancel_tasks(end_s)
        self._run_for(self.loop.shutdown_asyncgens())
        self._cancel_tasks(end_s)

    def _cancel_tasks(self, end_s: float) -> None:
        """Cancel tasks, including those that callbacks and other tasks create meanwhile, until there are none."""
        while True:
            # Tasks begin: if cancelled before that, they could not report their end.
            self._run_for(asyncio.sleep(0))
            tasks = asyncio.all_tasks(self.loop)
            left_s = end_s - time.monotonic()
            if not tasks or left_s <= 0.0:
                return
            for task in tasks:
                task.cancel()
            self._run_for(asyncio.wait(tasks, timeout=left_s))

    def _run_for(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run until it is done, even if other code calls the loop's stop()."""
        task = self.loop.create_task(coroutine)
        for _ in range(_MAX_FAILURES):
            with contextlib.suppress(RuntimeError, SystemExit, KeyboardInterrupt):
                self.loop.run_until_complete(task)
            if task.done():
                return

    def _close(self) -> None:
        self.is_over = True
        try:
            self.loop.close()
        finally:
            try:
                self._refuse()
                for call in [*self._begun]:  # the loop could not finish them
                    call.refuse()
                if self.at_end is not None:
                    self.at_end()
            finally:
                self._ended.set()

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._logger.error("unexpected error on the loop: %s: %r", context.get("message"), context.get("exception"))
