"""Receipts: the outcome of a request or of a producer's batch, once it is known."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING

from raccoon_fast.timeouts import shield

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from raccoon_fast.callbacks import CallbackThread
    from raccoon_fast.delivery.promise import Promise
    from raccoon_fast.events import Response

__all__ = ["AsyncReceipt", "Receipt"]


class Receipt:
    """The outcome of a request submitted to a sync client, or of a Producer's batch. Thread-safe.

    Attributes:
        req_guid: The request's guid.
    """

    # A program may have very many receipts.
    __slots__ = ("__weakref__", "_callbacks", "_future", "req_guid")

    def __init__(
        self,
        req_guid: str,
        future: Promise[Response],
        callbacks: CallbackThread,
    ) -> None:
        self.req_guid = req_guid
        self._future = future
        self._callbacks = callbacks

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Response:
        """Wait for the acknowledgement.

        Args:
            timeout: Seconds to wait; None waits as long as the request takes, within its own deadlines.

        Raises:
            TimeoutError: The outcome was not known in time; the request continues.
            RaccoonError: The request failed; see `send`.
        """
        try:
            return self._future.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._future.done():
                raise  # the request's own AckTimeoutError
            raise TimeoutError(f"request {self.req_guid} is still on its way after {timeout:g} s") from None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome, and return the exception that `result` would raise, or None.

        Raises:
            TimeoutError: The outcome was not known in time.
        """
        try:
            return self._future.exception(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"request {self.req_guid} is still on its way after {timeout:g} s") from None

    def add_done_callback(self, callback: Callable[[Receipt], object]) -> None:
        """Call `callback(receipt)` once the outcome is known, or now if it is.

        The callbacks of a client run one after the other on a separate thread (never on the event loop); their
        exceptions are logged.
        """
        self._callbacks.start()
        self._future.add_done_callback(lambda _: self._callbacks.submit(callback, self))

    def __repr__(self) -> str:
        return f"<Receipt {self.req_guid} {_state(self._future.exception(0)) if self.done() else 'pending'}>"


class AsyncReceipt:
    """The outcome of a request to an async client, or of an AsyncProducer's batch; `await receipt` for its Response.

    Cancelling an `await` of it does not cancel the request. For the client's event loop only.

    Attributes:
        req_guid: The request's guid.
    """

    __slots__ = ("__weakref__", "_future", "req_guid")

    def __init__(self, req_guid: str, future: asyncio.Future[Response]) -> None:
        self.req_guid = req_guid
        self._future = future

    def __await__(self) -> Generator[object, None, Response]:
        return shield(self._future).__await__()

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._future.done()

    def result(self) -> Response:
        """The answer.

        Raises:
            asyncio.InvalidStateError: The outcome is not known yet.
            RaccoonError: The request failed; see `send`.
        """
        return self._future.result()

    def exception(self) -> BaseException | None:
        """The exception that `result` would raise, or None.

        Raises:
            asyncio.InvalidStateError: The outcome is not known yet.
        """
        return self._future.exception()

    def add_done_callback(self, callback: Callable[[AsyncReceipt], object]) -> None:
        """Call `callback(receipt)` on the event loop, soon after the outcome is known."""
        self._future.add_done_callback(lambda _: callback(self))

    def __repr__(self) -> str:
        if not self.done():
            state = "pending"
        elif self._future.cancelled():
            state = "cancelled"
        else:
            state = _state(self._future._exception)  # noqa: SLF001 - exception() would keep asyncio from reporting it
        return f"<AsyncReceipt {self.req_guid} {state}>"


def _state(error: BaseException | None) -> str:
    return "acknowledged" if error is None else f"failed: {type(error).__name__}"
