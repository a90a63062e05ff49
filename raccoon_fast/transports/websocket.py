"""WebSocket: one connection at a time to one server, opened when it is needed."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from raccoon_fast.errors import AckTimeoutError, ClientClosedError, Outcome
from raccoon_fast.transports.base import Transport
from raccoon_fast.transports.tcp import open_tcp
from raccoon_fast.transports.websocket_connection import WebSocketConnection

if TYPE_CHECKING:
    from raccoon_fast.events import Response
    from raccoon_fast.transports.base import Link, Request
    from raccoon_fast.transports.pinger import Keepalive

__all__ = ["WebSocketTransport"]


class WebSocketTransport(Transport):
    """Sends over a connection that is opened by the first request that finds none.

    A guid goes onto one connection once, unless it was answered with an error there: a server that dedups by connection
    answers SUCCESS for a guid it has seen, also while its first attempt may yet fail. So a request whose guid the
    connection has seen goes onto a new one, and the old one is closed when it has its last answer.

    Args:
        link: The server; ws or wss.
        keepalive: Our own pings.
        max_in_flight: Requests unanswered at once.
    """

    def __init__(self, link: Link, *, keepalive: Keepalive, max_in_flight: int) -> None:
        self._link = link
        self._keepalive = keepalive
        self._max_in_flight = max_in_flight
        self._connection: WebSocketConnection | None = None
        self._opening: asyncio.Task[WebSocketConnection] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._connected_before = False
        self._closed = False

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One frame out, its answer in. See Transport.send."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        connection = await self._connect(deadline_s)
        if connection.acks.seen(request.req_guid):
            self._retire(connection)
            connection = await self._connect(deadline_s)
        answer = connection.exchange(request, deadline_s)
        try:
            return await answer
        except asyncio.CancelledError:
            connection.abandon(request)
            raise

    def start(self, request: Request, timeout_s: float) -> asyncio.Future[Response]:
        """At once where a connection is open that may carry it. See Transport.start."""
        connection = self._connection
        if connection is None or connection.error is not None or connection.acks.seen(request.req_guid):
            return super().start(request, timeout_s)
        return connection.exchange(request, asyncio.get_running_loop().time() + timeout_s)

    async def close(self) -> None:
        """See Transport.close."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        for task in [*self._retiring]:
            task.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self, deadline_s: float) -> WebSocketConnection:
        """The open connection, or a new one; those who ask meanwhile share the attempt, and its failure."""
        if self._closed:
            raise ClientClosedError("the client was closed")
        connection = self._connection
        if connection is not None and connection.error is None:
            return connection
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open(connection is not None and connection.has_culprit))
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        timeout_s = deadline_s - asyncio.get_running_loop().time()
        await asyncio.wait([opening], timeout=timeout_s)
        if not opening.done():
            raise AckTimeoutError(f"not connected to {self._link.address} in time", outcome=Outcome.NOT_DELIVERED)
        if opening.cancelled() or self._closed:
            raise ClientClosedError("the client was closed")
        error = opening.exception()
        if error is not None:
            raise copy.copy(error)  # each gets its own to fill in
        return opening.result()

    async def _open(self, one_at_a_time: bool) -> WebSocketConnection:
        link = self._link
        timeout_s = link.connect_timeout_s
        connection = await open_tcp(
            link, lambda: WebSocketConnection(link, self._keepalive, self._max_in_flight), timeout_s
        )
        await connection.open(timeout_s)
        if one_at_a_time:
            # Somewhere in what was in flight is a request the server cannot read; alone, it is known by its answer.
            connection.window.failed()
        link.logger.info("%s %s", "reconnected to" if self._connected_before else "connected to", link.address)
        self._connected_before = True
        return connection

    def _opened(self, task: asyncio.Task[WebSocketConnection]) -> None:
        self._opening = None
        if task.cancelled() or task.exception() is not None:
            return
        if self._closed:  # in the very step that ended the handshake
            task.result().abort()
        else:
            self._connection = task.result()

    def _retire(self, connection: WebSocketConnection) -> None:
        if self._connection is connection:
            self._connection = None
            task = asyncio.ensure_future(connection.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
