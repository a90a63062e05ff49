"""REST: sends POSTs over a pool of HTTP/1.1 connections."""

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
    RaccoonError,
    TransportError,
)
from raccoon_fast.net.tcp import open_tcp
from raccoon_fast.stats import TOTAL_CONN_ERR
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import Transport, worse
from raccoon_fast.transports.http_answers import CONTENT_TYPES, read_answer
from raccoon_fast.transports.rest.connection import HTTPAnswer, HTTPConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raccoon_fast.events import Response
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Link, Request

__all__ = ["HTTPPool", "RestTransport"]

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

        A kept connection that the server closed just as it was used again is replaced by a fresh one, once: that is no
        failure of the server's. The server may have read the request all the same.

        Args:
            message: The whole request, head and body.
            timeout_s: Seconds for a connection, the request and the answer together.
            read: Turns the answer into what is returned. Where it raises ProtocolError, the connection is closed.
            request: Its `was_written` and `resends` are kept.

        Raises:
            DeliveryError: As open_tcp, HTTPConnection.exchange and `read`. `outcome` is that of both writes.
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
                    return await self._use(connection, message, deadline_s, read, request)
                except ConnectionLostError as error:
                    if connection.began_answer:
                        raise
                    lost = error
            try:
                connection = await self._open(deadline_s - loop.time())
                return await self._use(connection, message, deadline_s, read, request)
            except (DeliveryError, MessageTooLargeError) as error:
                if lost is not None:
                    error.outcome = worse(error.outcome, lost.outcome)
                raise
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
            # Not `await opening`, which hands a cancellation on to it: where the connection is there in the same step,
            # `asyncio.wait_for` keeps that to itself, up to Python 3.11.
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
        message: bytes | memoryview,
        deadline_s: float,
        read: Callable[[HTTPAnswer], _R],
        request: Request | None,
    ) -> _R:
        try:
            return read(await connection.exchange(message, deadline_s, request))
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
            connection = self._idle.pop()  # the one used last is the least likely to have been closed
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
    """Return a connection for which nobody waits any more; the wait may have been cancelled as it opened."""
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
        self._identity: dict[str, str] = {}
        self._pool: HTTPPool | None = None
        self._again: set[asyncio.Task[None]] = set()
        # A POST's head up to the body's length, and what it was made for: User-Agent and encoding.
        self._head = b""
        self._head_for: tuple[str, str] | None = None

    @property
    def connections(self) -> int:
        """See Transport.connections."""
        return self._pool.connections if self._pool is not None else 0

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One POST. See Transport.send; RFC 9110 for the statuses."""
        if self._pool is None:
            self._pool = HTTPPool(self._link, self._connections)
            self._identity = self._link.identity.headers()  # here, so that after a fork each process has its own
        try:
            read = functools.partial(self._read, request)
            return await self._pool.exchange(self._message(request), timeout_s, read, request)
        except ConnectionLostError:
            self._link.stats.count(TOTAL_CONN_ERR, 1)
            raise

    def start(self, request: Request, timeout_s: float) -> AnyAttempt:
        """Starts at once if a connection is kept. See Transport.start."""
        connection = self._pool.take() if self._pool is not None else None
        if self._pool is None or connection is None:
            return super().start(request, timeout_s)
        attempt = Attempt()
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        try:
            message = self._message(request)
        except Exception as error:  # noqa: BLE001 - the user's `auth` makes a part of it
            self._pool.give_back(connection)
            attempt.set_exception(error)
            return attempt
        ended = functools.partial(self._ended, connection, request, attempt, deadline_s)
        try:
            connection.begin(message, deadline_s, ended, request)
        except TransportError as error:  # it ended in the step before
            ended(error)
        return attempt

    async def close(self) -> None:
        """See Transport.close."""
        if self._pool is not None:
            self._pool.close()

    def _ended(
        self,
        connection: HTTPConnection,
        request: Request,
        attempt: Attempt,
        deadline_s: float,
        outcome: HTTPAnswer | RaccoonError,
    ) -> None:
        assert self._pool is not None
        response: Response | Exception
        if isinstance(outcome, HTTPAnswer):
            try:
                response = self._read(request, outcome)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what became of the attempt
                response = error
                if isinstance(error, ProtocolError):
                    connection.abort()
        else:
            response = outcome
        self._pool.give_back(connection)
        if attempt.done():
            return
        if not isinstance(response, Exception):
            attempt.set_result(response)
            return
        if isinstance(outcome, ConnectionLostError):
            if not connection.began_answer:
                # Closed by the server just as it was used again, as in HTTPPool.exchange.
                task = asyncio.ensure_future(self._send_again(request, attempt, deadline_s, outcome.outcome))
                self._again.add(task)
                task.add_done_callback(self._again.discard)
                return
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        attempt.set_exception(response)

    async def _send_again(self, request: Request, attempt: Attempt, deadline_s: float, before: Outcome) -> None:
        try:
            response = await self.send(request, deadline_s - asyncio.get_running_loop().time())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what became of the attempt
            if isinstance(error, (DeliveryError, MessageTooLargeError)):
                error.outcome = worse(error.outcome, before)
            if not attempt.done():
                attempt.set_exception(error)
        else:
            if not attempt.done():
                attempt.set_result(response)

    def _message(self, request: Request) -> bytes | memoryview:
        link = self._link
        head_for = (link.user_agent, request.wire)
        if link.authorization is not None or head_for != self._head_for:
            self._head = _start_of_head(link, self._identity, CONTENT_TYPES[request.wire])
            self._head_for = head_for
        head = b"%b%d\r\n\r\n" % (self._head, request.envelope.nbytes)
        if request.headers:
            lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            head = b"%b%b\r\n" % (head[:-2], lines.encode("latin-1"))
        return request.envelope.prefixed(head)

    def _read(self, request: Request, answer: HTTPAnswer) -> Response:
        request.written_s = answer.written_s
        return read_answer(
            answer.status,
            answer.body,
            answer.header,
            wire=request.wire,
            req_guid=request.req_guid,
            address=self._link.address,
            words=self._link.words,
        )


def _start_of_head(link: Link, identity: Mapping[str, str], content_type: str) -> bytes:
    """A POST's head up to its body's length. Values were checked for CR and LF when the client was made."""
    address = link.address
    lines = [f"POST {address.path} HTTP/1.1", f"Host: {address.authority}"]
    headers = link.request_headers(identity)
    if not any(name.lower() == "accept-encoding" for name in headers):
        # Without it a server may choose any coding (RFC 9110, 12.5.3); none is decoded here.
        lines.append("Accept-Encoding: identity")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Type: {content_type}", "Content-Length: "]
    return "\r\n".join(lines).encode("latin-1")
