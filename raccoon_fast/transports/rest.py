"""REST: POSTs over a pool of our own HTTP/1.1 connections."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast.errors import AckTimeoutError, ClientClosedError, ConnectionLostError, Outcome
from raccoon_fast.stats import TOTAL_CONN_ERR
from raccoon_fast.transports.base import Transport
from raccoon_fast.transports.http1 import HTTPAnswer, HTTPConnection
from raccoon_fast.transports.http_answers import CONTENT_TYPES, read_answer
from raccoon_fast.transports.tcp import open_tcp

if TYPE_CHECKING:
    from raccoon_fast.events import Response
    from raccoon_fast.transports.base import Link, Request

__all__ = ["HTTPPool", "RestTransport"]


class HTTPPool:
    """Keep-alive connections to one server, one exchange each at a time, no pipelining.

    Owned by one event loop.

    Args:
        link: The server.
        size: Connections at most; further exchanges wait for one, first come first served.
    """

    def __init__(self, link: Link, size: int) -> None:
        self._link = link
        self._free = size
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: list[HTTPConnection] = []
        self._busy: set[HTTPConnection] = set()
        self._opening: set[asyncio.Task[HTTPConnection]] = set()
        self._closed = False

    async def exchange(self, message: bytes | memoryview, timeout_s: float) -> HTTPAnswer:
        """Send one request and read its answer.

        A kept connection that the server closed just as it was used again is replaced by a fresh one, once: that is no
        failure of the server's.

        Args:
            message: The whole request, head and body.
            timeout_s: Seconds for a connection, the request and the answer together.

        Raises:
            DeliveryError: As open_tcp and HTTPConnection.exchange.
            ClientClosedError: The pool was closed.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        await self._acquire(deadline_s)
        try:
            connection = self._take_idle()
            if connection is not None:
                try:
                    return await self._use(connection, message, deadline_s)
                except ConnectionLostError:
                    if connection.began_answer:
                        raise
            connection = await self._open(deadline_s - loop.time())
            return await self._use(connection, message, deadline_s)
        finally:
            self._release()

    async def _open(self, timeout_s: float) -> HTTPConnection:
        """A new connection. In a task of its own, so that `close` need not wait for a peer that does not answer."""
        if self._closed:
            raise ClientClosedError("the client was closed")
        opening = asyncio.ensure_future(open_tcp(self._link, lambda: HTTPConnection(self._link), timeout_s))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        try:
            connection = await opening
        except asyncio.CancelledError:
            opening.add_done_callback(_abort)
            if self._closed:
                raise ClientClosedError("the client was closed") from None
            raise
        if self._closed:
            connection.abort()
            raise ClientClosedError("the client was closed")
        return connection

    async def _use(self, connection: HTTPConnection, message: bytes | memoryview, deadline_s: float) -> HTTPAnswer:
        self._busy.add(connection)
        try:
            answer = await connection.exchange(message, deadline_s)
        finally:
            self._busy.discard(connection)
        if connection.reusable:
            if self._closed:
                connection.abort()
            else:
                self._idle.append(connection)
        return answer

    def _take_idle(self) -> HTTPConnection | None:
        while self._idle:
            connection = self._idle.pop()  # the one used last is the least likely to have been closed
            if connection.reusable:
                return connection
        return None

    async def _acquire(self, deadline_s: float) -> None:
        if self._free:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_at(deadline_s, _time_out, waiter, self._link)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release()  # cancelled in the very step that handed the slot over
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

    def close(self) -> None:
        """Abort every connection. Idempotent."""
        self._closed = True
        for opening in [*self._opening]:
            opening.cancel()
        for connection in [*self._idle, *self._busy]:
            connection.abort()
        self._idle.clear()


def _abort(opening: asyncio.Task[HTTPConnection]) -> None:
    """Nobody waits for this connection any more; it may have been made in the very step that cancelled the wait."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


def _time_out(waiter: asyncio.Future[None], link: Link) -> None:
    if not waiter.done():
        waiter.set_exception(
            AckTimeoutError(f"no free connection to {link.address} in time", outcome=Outcome.NOT_DELIVERED)
        )


class RestTransport(Transport):
    """POSTs to `/api/v1/events`.

    Args:
        link: The server; http or https.
        connections: Size of the pool: requests in flight at once.
    """

    def __init__(self, link: Link, *, connections: int = 8) -> None:
        self._link = link
        self._connections = connections
        self._pool: HTTPPool | None = None

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One POST. See Transport.send; RFC 9110 for the statuses."""
        link = self._link
        if self._pool is None:
            self._pool = HTTPPool(link, self._connections)
        head = request_head(link, CONTENT_TYPES[request.wire], request.envelope.nbytes)
        message = request.envelope.prefixed(head)
        try:
            answer = await self._pool.exchange(message, timeout_s)
        except ConnectionLostError:
            link.stats.count(TOTAL_CONN_ERR, 1)
            raise
        request.written_s = answer.written_s
        return read_answer(
            answer.status,
            answer.body,
            answer.header(b"content-type"),
            answer.header(b"retry-after"),
            wire=request.wire,
            req_guid=request.req_guid,
            address=link.address,
        )

    async def close(self) -> None:
        """See Transport.close."""
        if self._pool is not None:
            self._pool.close()


def request_head(link: Link, content_type: str, length: int) -> bytes:
    """The head of a POST of `length` bytes. Header values were checked for CR and LF when the client was made."""
    address = link.address
    lines = [f"POST {address.path} HTTP/1.1", f"Host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in link.request_headers().items()]
    lines += [f"Content-Type: {content_type}", f"Content-Length: {length}", "\r\n"]
    return "\r\n".join(lines).encode("latin-1")
