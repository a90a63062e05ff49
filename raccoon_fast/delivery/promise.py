"""An outcome that one thread settles and others may wait for."""

from __future__ import annotations

import concurrent.futures
import contextlib
from typing import TYPE_CHECKING

from raccoon_fast.threads import new_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.events import Response

__all__ = ["Promise"]


class Promise:
    """As concurrent.futures.Future, without cancellation; a batch has one, and mostly nobody waits for it.

    So it has no lock: who waits leaves a callback first and looks whether it is settled then, and who settles it does
    so before looking for callbacks.
    """

    __slots__ = ("_callbacks", "_error", "_is_done", "_result")

    def __init__(self) -> None:
        self._is_done = False
        self._result: Response | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Promise], object]] = []

    def done(self) -> bool:
        """Whether it is settled."""
        return self._is_done

    def set_result(self, result: Response) -> None:
        """Settle it, once."""
        self._result = result
        self._settled()

    def set_exception(self, error: BaseException) -> None:
        """Settle it with a failure, once."""
        self._error = error
        self._settled()

    def result(self, timeout: float | None = None) -> Response:
        """Wait for what it is settled with.

        Args:
            timeout: Seconds; None waits without a bound.

        Raises:
            concurrent.futures.TimeoutError: It was not settled in time.
            BaseException: What it was settled with.
        """
        self._wait(timeout)
        try:
            if self._error is not None:
                raise self._error
            return self._result  # type: ignore[return-value]
        finally:
            self = None  # type: ignore[assignment]  # or the error would lead to its traceback, and that to the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as `result`, and return what it would raise, or None.

        Raises:
            concurrent.futures.TimeoutError: It was not settled in time.
        """
        self._wait(timeout)
        return self._error

    def add_done_callback(self, callback: Callable[[Promise], object]) -> None:
        """Call `callback(self)` once it is settled, by who settles it, or now if it is; it must not raise."""
        self._callbacks.append(callback)
        if self._is_done:
            self._call_back()

    def _settled(self) -> None:
        self._is_done = True
        if self._callbacks:
            self._call_back()

    def _call_back(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # two threads are here; each callback is taken by one of them
                return
            callback(self)

    def _wait(self, timeout: float | None) -> None:
        if self._is_done:
            return
        event = new_event()

        def wake(_: object) -> None:
            event.set()

        self.add_done_callback(wake)
        try:
            if not event.wait(timeout):
                raise concurrent.futures.TimeoutError
        finally:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(wake)
