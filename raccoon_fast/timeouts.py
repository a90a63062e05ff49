"""Waiting in asyncio: `timeout` limits the time of a block, and `shield` leaves what it waits for alone.

The package does not use asyncio.wait_for. Before Python 3.12 it ignores a cancellation if what it waits for ends in
the same step of the loop (python/cpython#81839); asyncio.run then waits for a task that goes on.

It does not use asyncio.shield either. From Python 3.14 on, asyncio.shield reports a future that fails after its waiter
was cancelled to the loop's exception handler, which writes a traceback to stderr.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["shield", "timeout"]

_T = TypeVar("_T")


def shield(future: asyncio.Future[_T]) -> asyncio.Future[_T]:
    """Return a future with the outcome of another. Cancelling it, as a cancelled `await` does, leaves the other alone.

    For the loop of `future` only. An error that comes after the cancellation is reported nowhere.
    """
    if future.done():
        return future
    copy: asyncio.Future[_T] = future.get_loop().create_future()

    def settle(_: object) -> None:
        if copy.done():  # cancelled in the same step of the loop
            _look_at(future)
        elif future.cancelled():
            copy.cancel()
        elif (error := future.exception()) is not None:
            copy.set_exception(error)
        else:
            copy.set_result(future.result())

    def let_go(_: object) -> None:
        if copy.cancelled() and future.remove_done_callback(settle):
            future.remove_done_callback(_look_at)  # once is enough
            future.add_done_callback(_look_at)

    future.add_done_callback(settle)
    copy.add_done_callback(let_go)
    return copy


def _look_at(future: asyncio.Future[Any]) -> None:
    """Retrieve the error, so that asyncio does not report it as never retrieved."""
    if not future.cancelled():
        future.exception()
