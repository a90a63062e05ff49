"""The base of connections that many requests share: each is opened, watched and ended once."""

from __future__ import annotations

import abc
import asyncio
from typing import TYPE_CHECKING, cast

from raccoon_fast.errors import ConnectError, ProtocolError
from raccoon_fast.stats import TOTAL_BYTES_SENT
from raccoon_fast.timeouts import shield, timeout
from raccoon_fast.transports.base import lost_error
from raccoon_fast.transports.deadline_timer import DeadlineTimer

if TYPE_CHECKING:
    from raccoon_fast.errors import TransportError
    from raccoon_fast.transports.base import Link

__all__ = ["SharedConnection"]

_CLOSE_TIMEOUT_S = 1.0
# While frames are held, one of up to _SMALL_BYTES waits for others of the same step, because each write costs several
# microseconds. At _MOST_HELD_BYTES they are written.
_SMALL_BYTES, _MOST_HELD_BYTES = 16 * 1024, 64 * 1024
# Up to this many bytes are joined into one buffer, which is cheaper than several.
_COPIED_BYTES = 32 * 1024
# The most frames that wait as answers to a server, such as answers to PING; protects from a server that reads none of
# them.
_MOST_UNREAD = 10_000


class SharedConnection(asyncio.Protocol, abc.ABC):
    """A connection from its greeting to its end; it is never reopened. Owned by the event loop on which it was created.

    Args:
        link: The server.

    Attributes:
        transport: None before the connection is open.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        #: The loop's time.
        self.now_s = self._loop.time
        self.transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        # False while the socket accepts no data (asyncio's flow control).
        self._writable = True
        self._unread = 0
        # Small frames to be written by `release`; None while each is written at once.
        self._held: list[bytes | memoryview] | None = None
        self._held_bytes = 0
        self._timer = DeadlineTimer(self._expire)

    @property
    @abc.abstractmethod
    def usable(self) -> bool:
        """Whether it accepts further requests."""

    def abort(self) -> None:
        """Close at once; requests in flight fail with ConnectionLostError. Idempotent."""
        self._end(lost_error(None, self._link.address))
        if self.transport is not None:
            self.transport.abort()

    def hold(self) -> None:
        """See Transport.hold."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """See Transport.release."""
        self._write_held()
        self._held = None

    def _put(self, buffers: list[bytes | memoryview], nbytes: int) -> bool:
        """Write a frame, or let `release` write it; returns whether it was written.

        Args:
            buffers: The parts of the frame, in order; they must not change until `release`.
            nbytes: The length of all parts, more than 0.
        """
        held = self._held
        if held is not None and nbytes <= _SMALL_BYTES:
            held += buffers
            self._held_bytes += nbytes
            if self._held_bytes < _MOST_HELD_BYTES:
                return False
            self._write_held()
            return True
        self._write_held()
        self._write_all(buffers, nbytes)
        return True

    def _write_held(self) -> None:
        held, nbytes = self._held, self._held_bytes
        if held:
            self._held, self._held_bytes = [], 0
            self._write_all(held, nbytes)

    def _write_all(self, buffers: list[bytes | memoryview], nbytes: int) -> None:
        transport = self.transport
        assert transport is not None
        if transport.is_closing():
            return  # connection_lost reports the outcome
        if len(buffers) == 1:
            transport.write(buffers[0])
        elif nbytes <= _COPIED_BYTES:
            transport.write(b"".join(buffers))
        else:
            transport.writelines(buffers)
        self._link.stats.count(TOTAL_BYTES_SENT, nbytes)

    @abc.abstractmethod
    def move_on(self) -> None:
        """Leave this address once the requests in flight have ended; a new connection gets further ones."""

    async def _wait_opened(self, timeout_s: float, late: str) -> None:
        """Wait for the greeting. A caller that stops waiting must close the connection.

        Raises:
            ConnectError: It did not come in time; `late` says so.
        """
        try:
            async with timeout(timeout_s):
                await shield(self._opened)
        except asyncio.TimeoutError:
            error = ConnectError(late)
            self._end(error)
            raise error from None
        except BaseException:
            self.abort()
            raise

    async def _wait_lost(self) -> None:
        """Wait at most a second for the connection to end after the goodbye, then abort it."""
        try:
            if self.transport is not None:
                await asyncio.wait([self._lost], timeout=_CLOSE_TIMEOUT_S)
        finally:
            self.abort()

    @abc.abstractmethod
    def _end(self, error: TransportError) -> None:
        """Close at once, and tell the waiters; does nothing if it is closed."""

    def _stop(self, error: Exception) -> None:
        """The part of `_end` common to all protocols."""
        self._timer.stop()
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # the task that opened it may have ended

    def _answer_written(self) -> None:
        """Count a frame that answers the server; too many unread ones end the connection."""
        if self._writable:
            return
        self._unread += 1
        if self._unread > _MOST_UNREAD:
            self._end(ProtocolError(f"{self._link.address} sends pings or settings but does not read the answers"))

    @abc.abstractmethod
    def _pump(self) -> None:
        """Write waiting data, as far as the server's limits and the socket allow."""

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
        self._unread = 0
        self._pump()

    @abc.abstractmethod
    def _expire(self, now_s: float) -> float | None:
        """As DeadlineTimer's `expire`."""
