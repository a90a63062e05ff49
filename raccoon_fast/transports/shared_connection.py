"""What connections that many requests share have in common: each is opened, watched and ended, once."""

from __future__ import annotations

import abc
import asyncio
from typing import TYPE_CHECKING, cast

from raccoon_fast.errors import ConnectError
from raccoon_fast.transports.base import GRACE_S, lost_error

if TYPE_CHECKING:
    from raccoon_fast.errors import TransportError
    from raccoon_fast.transports.base import Link

__all__ = ["SharedConnection"]

_CLOSE_TIMEOUT_S = 1.0


class SharedConnection(asyncio.Protocol, abc.ABC):
    """A connection, from its greeting to its end; not reopened. Owned by the event loop it was made on.

    Args:
        link: The server.

    Attributes:
        transport: None before the connection is there.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        # False while the socket takes no more (asyncio's flow control).
        self._writable = True
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_s = 0.0

    @property
    @abc.abstractmethod
    def usable(self) -> bool:
        """Whether it takes further requests."""

    def abort(self) -> None:
        """Close at once; what is in flight fails with ConnectionLostError. Idempotent."""
        self._end(lost_error(None, self._link.address))
        if self.transport is not None:
            self.transport.abort()

    async def _wait_opened(self, timeout_s: float, late: str) -> None:
        """Wait for the greeting; whoever fails to wait closes the connection.

        Raises:
            ConnectError: It did not come in time; `late` says so.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._opened), timeout_s)
        except asyncio.TimeoutError:
            error = ConnectError(late)
            self._end(error)
            raise error from None
        except BaseException:
            self.abort()
            raise

    async def _wait_lost(self) -> None:
        """After a goodbye: wait a second at most for the end, and see to it."""
        try:
            if self.transport is not None:
                await asyncio.wait([self._lost], timeout=_CLOSE_TIMEOUT_S)
        finally:
            self.abort()

    @abc.abstractmethod
    def _end(self, error: TransportError) -> None:
        """Close at once, and tell those who wait; nothing where it is closed already."""

    def _stop(self, error: Exception) -> None:
        """The part of `_end` that is everyone's."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # whoever opened may be gone

    @abc.abstractmethod
    def _pump(self) -> None:
        """Write what waits, as far as the server's limits and the socket allow."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    # Deadlines

    def _watch(self, deadline_s: float) -> None:
        """Have `_expire` called when the loop's time is past this deadline, or an earlier one."""
        if self._expiry is not None:
            if deadline_s >= self._expiry_s:
                return
            self._expiry.cancel()
        self._expiry_s = deadline_s
        self._expiry = self._loop.call_at(deadline_s + GRACE_S, self._loop.call_later, GRACE_S, self._expired)

    def _expired(self) -> None:
        self._expiry = None
        next_s = self._expire(self._loop.time())
        if next_s is not None:
            self._watch(next_s)

    @abc.abstractmethod
    def _expire(self, now_s: float) -> float | None:
        """End what is past its deadline; returns the next deadline, None if there is none."""
