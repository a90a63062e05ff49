"""An attempt under way, which calls a callback when it ends or can be awaited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.events import Response

__all__ = ["AnyAttempt", "Attempt"]


class Attempt:
    """The outcome of an attempt, set once; can be awaited like an asyncio.Future.

    Its only callback runs in the step that ends the attempt, not in a further round of the event loop: at high rates
    a round costs as much as all other work for an answer. So it must not call back into the transport. Owned by
    the event loop on which it was created.

    Attributes:
        response: The answer; None before the end, and after a failure.
    """

    __slots__ = ("_callback", "_error", "_is_cancelled", "_is_done", "response")

    def __init__(self) -> None:
        self._is_done = False
        self._is_cancelled = False
        self.response: Response | None = None
        self._error: Exception | None = None
        self._callback: Callable[[Attempt], object] | None = None

    def done(self) -> bool:
        """Whether it has ended."""
        return self._is_done

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._is_cancelled

    def result(self) -> Response:
        """The answer of a finished attempt.

        Raises:
            CancelledError: It was cancelled.
            Exception: The error with which it failed.
        """
        if self._is_cancelled:
            raise asyncio.CancelledError
        if self._error is not None:
            raise self._error
        assert self.response is not None
        return self.response

    def set_result(self, response: Response) -> None:
        """End it with an answer; does nothing if it is done."""
        if not self._is_done:
            self.response = response
            self._end()

    def set_exception(self, error: Exception) -> None:
        """End it with a failure; it must not be done."""
        self._error = error
        self._end()

    def cancel(self) -> bool:
        """Cancel it; returns whether it was under way. The caller must close the transport next."""
        if self._is_done:
            return False
        self._is_cancelled = True
        self._end()
        return True

    def add_done_callback(self, callback: Callable[[Attempt], object]) -> None:
        """Call `callback(self)` when it ends, or soon if it has ended. At most one callback."""
        if self._is_done:
            asyncio.get_running_loop().call_soon(callback, self)
        else:
            self._callback = callback

    def _end(self) -> None:
        self._is_done = True
        callback, self._callback = self._callback, None
        if callback is None:
            return
        try:
            callback(self)
        except Exception as error:  # noqa: BLE001 - as of any callback of the loop: the transport must not suffer from it
            context = {"message": f"{callback!r} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


AnyAttempt = Union[Attempt, "asyncio.Future[Response]"]
