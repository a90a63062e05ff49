"""A pool of HTTP/1.1 connections to one server, each for one exchange at a time."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from raccoon_fast.errors import (
    AckTimeoutError,
    ClientClosedError,
    ConnectionLostError,
    DeliveryError,
    MessageTooLargeError,
    Outcome,
    ProtocolError,
)
from raccoon_fast.net.tcp import open_tcp
from raccoon_fast.transports.base import worse
from raccoon_fast.transports.rest.connection import HTTPAnswer, HTTPConnection, resolve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from raccoon_fast.transports.base import Link, Request

__all__ = ["HTTPPool"]

_R = TypeVar("_R")


class HTTPPool:
    """Keep-alive connections to one server, one exchange each at a time, no pipelining.

    Owned by one event loop.

    Args:
        link: The server.
        size: The largest number of connections; further exchanges wait for one, first come first served.
    """

    def __init__(self, link: Link, size: int) -> None:
        self._link = link
        self._free = size
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: list[HTTPConnection] = []
        # All that are open, idle or in an exchange.
        self._connections: set[HTTPConnection] = set()
        self._opening: set[asyncio.Task[HTTPConnection]] = set()
        self._closed = False

    async def exchange(
        self,
        message: bytes | memoryview,
        timeout_s: float,
        read: Callable[[HTTPAnswer], _R],
        request: Request | None = None,
    ) -> _R:
        """Send one request and read its answer.

        If the server closed a kept connection just as it was reused, the request is sent once more on a new connection:
        this is not a failure of the server. The server may have read the first request nevertheless.

        Args:
            message: The whole request, head and body.
            timeout_s: Seconds for a connection, the request and the answer together.
            read: Turns the answer into the result. If it raises ProtocolError, the connection is closed.
            request: Its `was_written` and `resends` are kept.

        Raises:
            DeliveryError: As open_tcp, HTTPConnection.exchange and `read`. `outcome` covers both writes.
            ClientClosedError: The pool was closed.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        await self._acquire(deadline_s)
        lost: ConnectionLostError | None = None
        try:
            connection = self._take_idle()
            if connection is not None:
                try:
                    return await self._use(connection, connection.exchange(message, deadline_s, request), read)
                except ConnectionLostError as error:
                    if connection.began_answer:
                        raise
                    lost = error
            try:
                return await self._exchange_first(message, deadline_s, read, request)
            except (DeliveryError, MessageTooLargeError) as error:
                if lost is not None:
                    error.outcome = worse(error.outcome, lost.outcome)
                raise
        finally:
            self._release()

    async def _exchange_first(
        self,
        message: bytes | memoryview,
        deadline_s: float,
        read: Callable[[HTTPAnswer], _R],
        request: Request | None,
    ) -> _R:
        """Open a connection. It writes the request itself, as soon as it is made."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[HTTPAnswer] = loop.create_future()
        made: list[HTTPConnection] = []

        def begin(connection: HTTPConnection) -> None:
            made.append(connection)
            try:
                connection.begin(message, deadline_s, functools.partial(resolve, waiter), request)
            except BaseException as error:  # noqa: BLE001 - the event loop would only log it
                waiter.set_exception(error)
                connection.abort()

        try:
            connection = await self._open(begin, deadline_s - loop.time())
        except BaseException as error:
            if made:
                made[0].abort()
                if isinstance(error, DeliveryError):
                    error.outcome = worse(error.outcome, Outcome.POSSIBLY_DELIVERED)
            if not waiter.cancel():
                waiter.exception()  # otherwise asyncio logs that it was never retrieved
            raise
        return await self._use(connection, connection.wait(waiter), read)

    async def _open(self, begin: Callable[[HTTPConnection], None], timeout_s: float) -> HTTPConnection:
        """A new connection. A separate task opens it, so that `close` need not wait for a silent peer."""
        if self._closed:
            raise ClientClosedError("the client was closed")
        opening = asyncio.ensure_future(open_tcp(self._link, lambda: HTTPConnection(self._link, begin), timeout_s))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        try:
            # Not `await opening`: a connection that opens in the step of a cancellation would be left open.
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            opening.add_done_callback(_abort)
            opening.cancel()
            raise
        if opening.cancelled():
            raise ClientClosedError("the client was closed")
        connection = opening.result()
        if self._closed:
            connection.abort()
            raise ClientClosedError("the client was closed")
        self._connections.add(connection)
        return connection

    async def _use(
        self,
        connection: HTTPConnection,
        exchange: Awaitable[HTTPAnswer],
        read: Callable[[HTTPAnswer], _R],
    ) -> _R:
        try:
            return read(await exchange)
        except ProtocolError:
            connection.abort()
            raise
        finally:
            self._used(connection)

    def _used(self, connection: HTTPConnection) -> None:
        if connection.reusable and not self._closed:
            self._idle.append(connection)
        else:
            connection.abort()
            self._connections.discard(connection)

    def take(self) -> HTTPConnection | None:
        """A kept connection for one exchange, to be returned afterwards; None if `exchange` must wait."""
        connection = self._take_idle() if self._free else None
        if connection is not None:
            self._free -= 1
        return connection

    def give_back(self, connection: HTTPConnection) -> None:
        """Undo `take`."""
        self._used(connection)
        self._release()

    def _take_idle(self) -> HTTPConnection | None:
        while self._idle:
            connection = self._idle.pop()  # the server is least likely to have closed the one used last
            if connection.reusable:
                return connection
            self._connections.discard(connection)
        return None

    async def _acquire(self, deadline_s: float) -> None:
        if self._free:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_at(deadline_s, _time_out, waiter, self._link, deadline_s - loop.time())
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release()  # cancelled in the step that passed on the slot
            raise
        finally:
            timer.cancel()

    def _release(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return sum(connection.is_open for connection in [*self._connections])

    def close(self) -> None:
        """Abort every connection. Idempotent."""
        self._closed = True
        for opening in [*self._opening]:
            opening.cancel()
        for connection in [*self._connections]:
            connection.abort()
        self._idle.clear()


def _abort(opening: asyncio.Task[HTTPConnection]) -> None:
    """Return a connection for which nothing waits any more: the wait may have been cancelled."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


def _time_out(waiter: asyncio.Future[None], link: Link, timeout_s: float) -> None:
    if not waiter.done():
        late = f"no free connection to {link.address} within {timeout_s:.3g} s"
        waiter.set_exception(AckTimeoutError(late, outcome=Outcome.NOT_DELIVERED))
