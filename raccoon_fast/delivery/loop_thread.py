"""An event loop on a thread of its own, for callers without one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
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
    from collections.abc import Coroutine

    from raccoon_fast.logs import Log
    from raccoon_fast.threads import Thread

__all__ = ["HELD_UP", "Call", "LoopThread", "new_event_loop"]

#: Why a loop does not answer in time.
HELD_UP = "the event loop is blocked: check that auth=, logger= and stats= do not block"

_T = TypeVar("_T")
# A loop that fails this often in a row, each time within this long, does not run any more.
_MAX_FAILURES = 20
_FAILS_S = 0.1


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop where there is uvloop (not on Windows), asyncio's own otherwise."""
    if sys.platform != "win32":
        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


class Call(Promise[_T]):
    """The outcome of a coroutine that runs on a LoopThread."""

    __slots__ = ("_coroutine", "_is_unwanted", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, _T]) -> None:
        super().__init__()
        self._loop = loop
        self._coroutine: Coroutine[Any, Any, _T] | None = coroutine
        self._task: asyncio.Task[_T] | None = None
        self._is_unwanted = False

    def cancel(self) -> None:
        """Cancel the coroutine, some time soon; then `result` raises concurrent.futures.CancelledError."""
        self._is_unwanted = True
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the task ended with it
            self._loop.call_soon_threadsafe(self._cancel)

    def begin(self) -> None:
        """Run it (called on the loop)."""
        coroutine, self._coroutine = self._coroutine, None
        assert coroutine is not None
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._ended)
        self._cancel()

    def refuse(self) -> None:
        """Settle it, begun or not: the loop is closed."""
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            coroutine.close()
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

    The loop and all that lives on it belong to this daemon thread, which the first `submit` starts; `submit` and `stop`
    are for all others. It has no lock: what is submitted waits in a deque, from which each item is taken once, to be
    run or to be refused. What is raised on the thread, SystemExit as well, is logged, and the loop goes on.

    Args:
        logger: Told of exceptions nobody else handled.

    Attributes:
        is_over: Whether it has ended, or is about to: nothing that is submitted runs any more.

    Raises:
        OSError: There is no descriptor left for a loop.
    """

    def __init__(self, logger: Log) -> None:
        self.is_over = False
        self._logger = logger
        self._inbox: deque[Call[Any]] = deque()
        self._begun: set[Call[Any]] = set()
        # Who takes it runs the loop, or closes it unused.
        self._vacancy = deque([None])
        self._thread: Thread | None = None
        self._ended = Event()
        self._is_stopped = False
        self.loop = new_event_loop()
        self.loop.set_exception_handler(self._unhandled)

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> Call[_T]:
        """Run a coroutine on the loop; cancelling the call cancels it there.

        Raises:
            ClientClosedError: The thread was stopped. Whatever was submitted before that is settled.
            RuntimeError: The system starts no thread.
        """
        call = Call(self.loop, coroutine)
        try:
            self._inbox.append(call)
            with contextlib.suppress(RuntimeError):  # it is closed
                self.loop.call_soon_threadsafe(self._begin)
            self.start()
        except BaseException:
            if call in self._inbox:
                self._inbox.remove(call)
                call.refuse()
            else:  # after a Ctrl-C: it runs already, and nobody is given what would cancel it
                call.cancel()
            raise
        if self.is_over:
            self._refuse()
            if call.done() and isinstance(call.exception(0), ClientClosedError):
                call.result(0)
        return call

    def start(self) -> None:
        """Start the thread unless it runs. A second thread, after a Ctrl-C or beside another caller, ends at once.

        Raises:
            RuntimeError: The system starts no thread.
        """
        if self._vacancy:
            thread = new_thread(lambda: self._run(thread), "raccoon_fast-loop")
            thread.start()

    def is_current(self) -> bool:
        """Whether the caller runs on the loop."""
        return self._thread is not None and self._thread.is_current()

    def stop(self, timeout_s: float) -> None:
        """Cancel what runs and end the thread, waiting at most `timeout_s`. Idempotent."""
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
        """Whether what was submitted is run yet."""
        if not self._inbox:
            return False
        try:
            self.start()
        except RuntimeError:  # none can be started: it is refused
            return False
        return True

    def _take_vacancy(self) -> bool:
        try:
            self._vacancy.pop()
        except IndexError:
            return False
        return True

    def _begin(self) -> None:
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
        except BaseException as error:  # noqa: BLE001 - there is nobody above to see it
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
            except BaseException as error:  # noqa: BLE001 - whatever runs on the loop, it must not end it
                raised = repr(error)
            failures = failures + 1 if time.monotonic() - began_s < _FAILS_S else 1
            self._logger.error("the event loop was interrupted by %s, and continues", raised)

    def _end_tasks(self) -> None:
        # What was submitted in the last moment begins: cancelled before that, it could not say how it ended.
        self._run_for(asyncio.sleep(0))
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._run_for(asyncio.wait(tasks, timeout=1.0))
        self._run_for(self.loop.shutdown_asyncgens())

    def _run_for(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Until it is done, whoever else calls the loop's stop()."""
        task = self.loop.create_task(coroutine)
        for _ in range(_MAX_FAILURES):
            with contextlib.suppress(RuntimeError, SystemExit):
                self.loop.run_until_complete(task)
            if task.done():
                return

    def _close(self) -> None:
        self.is_over = True
        try:
            self.loop.close()
        finally:
            self._refuse()
            for call in [*self._begun]:  # of a loop that could not run to their end
                call.refuse()
            self._ended.set()

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._logger.error("unexpected error on the loop: %s: %r", context.get("message"), context.get("exception"))
