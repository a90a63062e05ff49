"""WebSocket: one connection at a time to one server, opened on demand."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from raccoon_fast.net.tcp import open_tcp
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import Transport
from raccoon_fast.transports.dialer import Dialer
from raccoon_fast.transports.websocket.connection import WebSocketConnection

if TYPE_CHECKING:
    from raccoon_fast.events import Response
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Link, Request
    from raccoon_fast.transports.pinger import Keepalive

__all__ = ["WebSocketTransport"]


class WebSocketTransport(Transport):
    """Sends over one connection, which the first request without a connection opens.

    A guid is sent only once per connection, except after an error answer: a server that dedups by connection answers
    SUCCESS for a guid that it has seen, even while the first attempt may still fail. So a request whose guid was sent
    on the connection goes onto a new one, and the old one is closed after its last answer.

    Args:
        link: The server; ws or wss.
        keepalive: Our own pings.
        max_in_flight: The largest number of unanswered requests.
    """

    def __init__(self, link: Link, *, keepalive: Keepalive, max_in_flight: int) -> None:
        self._link = link
        self._keepalive = keepalive
        self._max_in_flight = max_in_flight
        self._dialer: Dialer[WebSocketConnection] = Dialer(link, self._open)
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """See Transport.connections."""
        return self._dialer.connections

    async def send(self, request: Request, timeout_s: float) -> Response:
        """Send one frame and wait for its answer. See Transport.send."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        connection = await self._dialer.get(deadline_s)
        if connection.acks.seen(request.req_guid):
            self._retire(connection)
            connection = await self._dialer.get(deadline_s)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        connection.begin(request, answer, deadline_s)
        try:
            return await answer
        except asyncio.CancelledError:
            connection.abandon(request)
            raise

    def start(self, request: Request, timeout_s: float) -> AnyAttempt:
        """Starts at once if a connection is open and may carry the request. See Transport.start."""
        connection = self._dialer.connection
        if connection is None or connection.error is not None or connection.acks.seen(request.req_guid):
            return super().start(request, timeout_s)
        attempt = Attempt()
        connection.begin(request, attempt, connection.now_s() + timeout_s)
        return attempt

    def hold(self) -> None:
        """See Transport.hold."""
        self._dialer.hold()

    def release(self) -> None:
        """See Transport.release."""
        self._dialer.release()

    async def close(self) -> None:
        """See Transport.close."""
        connection = self._dialer.close()
        for task in [*self._retiring]:
            task.cancel()
        if connection is not None:
            await connection.close()

    async def _open(self, before: WebSocketConnection | None) -> WebSocketConnection:
        link = self._link
        timeout_s = link.connect_timeout_s
        headers = link.request_headers()
        connection = await open_tcp(
            link, lambda: WebSocketConnection(link, self._keepalive, self._max_in_flight, headers), timeout_s
        )
        await connection.open(timeout_s)
        connection.on_move = functools.partial(self._retire, connection)
        if before is not None:
            connection.suspects = before.suspects
            if before.has_culprit:
                connection.window.failed()
        return connection

    def _retire(self, connection: WebSocketConnection) -> None:
        if self._dialer.connection is connection:
            self._dialer.drop()
            task = asyncio.ensure_future(connection.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
