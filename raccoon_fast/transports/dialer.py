"""Opens one connection at a time, which many requests share."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Generic, TypeVar

from raccoon_fast.errors import AckTimeoutError, ClientClosedError, Outcome
from raccoon_fast.transports.shared_connection import SharedConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from raccoon_fast.transports.base import Link

__all__ = ["Dialer"]


_C = TypeVar("_C", bound=SharedConnection)


class Dialer(Generic[_C]):
    """Opens a connection on demand. Owned by one event loop.

    Args:
        link: The server; every new connection is reported to it.
        open_: Opens a connection, given the previous one, within `link.connect_timeout_s`. Raises the errors of
            `Transport.send`.

    Attributes:
        connection: The last connection opened, usable or not; None before the first one and after `drop`.
    """

    def __init__(self, link: Link, open_: Callable[[_C | None], Awaitable[_C]]) -> None:
        self.connection: _C | None = None
        self._link = link
        self._open = open_
        self._opening: asyncio.Task[_C] | None = None
        self._connected_before = False
        self._closed = False
        self._held: _C | None = None

    @property
    def connections(self) -> int:
        """1 if there is a connection that accepts requests, else 0."""
        connection = self.connection
        return int(connection is not None and connection.usable)

    def hold(self) -> None:
        """See Transport.hold."""
        if self.connection is not None:
            self._held = self.connection
            self._held.hold()

    def release(self) -> None:
        """See Transport.release. The connection may be another one by now."""
        if self._held is not None:
            self._held.release()
            self._held = None

    async def get(self, deadline_s: float) -> _C:
        """The connection, or a new one; concurrent callers share the attempt and its failure.

        Args:
            deadline_s: The loop time by which it must be open.

        Raises:
            AckTimeoutError: It is not open in time.
            ClientClosedError: After `close`.
            RaccoonError: Raised by `open_`; each caller gets its own copy.
        """
        if self._closed:
            raise ClientClosedError("the client was closed")
        connection = self.connection
        if connection is not None and connection.usable:
            return connection
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._dial(connection))
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        left_s = max(deadline_s - asyncio.get_running_loop().time(), 0.0)
        await asyncio.wait([opening], timeout=left_s)
        if not opening.done():
            late = f"not connected to {self._link.address} within {left_s:.3g} s"
            raise AckTimeoutError(late, outcome=Outcome.NOT_DELIVERED)
        if opening.cancelled() or self._closed:
            raise ClientClosedError("the client was closed")
        error = opening.exception()
        if error is not None:
            raise copy.copy(error)  # each caller gets its own copy to fill in
        return opening.result()

    def drop(self) -> None:
        """Forget the connection: the next request gets a new one."""
        self.connection = None

    def close(self) -> _C | None:
        """Stop opening connections; returns the current one, for the caller to close. Idempotent."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        connection, self.connection = self.connection, None
        return connection

    async def _dial(self, before: _C | None) -> _C:
        connection = await self._open(before)
        link = self._link
        link.logger.info("%s %s", "reconnected to" if self._connected_before else "connected to", link.address)
        self._connected_before = True
        return connection

    def _opened(self, task: asyncio.Task[_C]) -> None:
        self._opening = None
        if task.cancelled() or task.exception() is not None:
            return
        if self._closed:  # in the step that ended the handshake
            task.result().abort()
        else:
            self.connection = task.result()
