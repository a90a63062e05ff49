"""An outcome that one thread settles and other threads may wait for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from raccoon_fast.threads import SLICE_S, new_wait

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Promise"]

_T = TypeVar("_T")


class Promise(Generic[_T]):
    """Like concurrent.futures.Future, but without cancellation and without a lock.

    A waiter first adds a callback and then checks whether the promise is settled; the settling thread first settles it
    and then looks for callbacks. So a signal handler may wait for a promise while the interrupted code settles it or
    waits for it too.
    """

    __slots__ = ("_callbacks", "_error", "_is_done", "_result", "_traceback")

    def __init__(self) -> None:
        self._is_done = False
        self._result: _T | None = None
        self._error: BaseException | Callable[[], BaseException] | None = None
        self._callbacks: list[Callable[[Promise[_T]], object]] = []

    def done(self) -> bool:
        """Whether it is settled."""
        return self._is_done

    def set_result(self, result: _T) -> None:
        """Settle it, once."""
        self._result = result
        self._is_done = True
        if self._callbacks:
            self._call_back()

    def set_exception(self, error: BaseException) -> None:
        """Settle it with a failure, once."""
        self._error, self._traceback = error, error.__traceback__
        self._settled()

    def set_exception_later(self, make: Callable[[], BaseException]) -> None:
        """Settle it with a failure, once; the failure is created when it is first read."""
        self._error = make
        self._settled()

    def result(self, timeout: float | None = None) -> _T:
        """Wait for the outcome.

        Args:
            timeout: Seconds; None waits without a limit.

        Raises:
            concurrent.futures.TimeoutError: It was not settled in time.
            BaseException: The failure with which it was settled.
        """
        if not self._is_done:
            self._wait(timeout)
        if self._error is None:
            return self._result  # type: ignore[return-value]
        try:
            if (error := self._failure()) is not None:
                # From where it came, or it would keep the frames of every earlier caller.
                raise error.with_traceback(self._traceback)
            return self._result  # type: ignore[return-value]
        finally:
            self = error = None  # type: ignore[assignment]  # or the error would lead to its traceback, and that to the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `result`, and return the exception that it would raise, or None.

        Raises:
            concurrent.futures.TimeoutError: It was not settled in time.
        """
        self._wait(timeout)
        return self._failure()

    def add_done_callback(self, callback: Callable[[Promise[_T]], object]) -> None:
        """Call `callback(self)` on the settling thread, or now if it is settled. It must not raise."""
        self._callbacks.append(callback)
        if self._is_done:
            self._call_back()

    def _failure(self) -> BaseException | None:
        error = self._error
        if error is not None and not isinstance(error, BaseException):
            error = error()
            self._traceback = error.__traceback__
            self._error = error
        return error

    def _settled(self) -> None:
        self._is_done = True
        if self._callbacks:
            self._call_back()

    def _call_back(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # if two threads are here, each callback is taken by one of them
                return
            callback(self)

    def _wait(self, timeout: float | None) -> None:
        if self._is_done:
            return
        deadline_s = float("inf") if timeout is None else time.monotonic() + timeout
        left_s = SLICE_S if timeout is None else timeout
        while not self._is_done:
            if left_s <= 0.0:
                raise concurrent.futures.TimeoutError
            wait = new_wait()
            self.add_done_callback(wait.end)
            try:
                wait.wait(min(left_s, SLICE_S))
            finally:
                if not self._is_done:
                    with contextlib.suppress(ValueError):  # it is being called
                        self._callbacks.remove(wait.end)
                    left_s = deadline_s - time.monotonic()
