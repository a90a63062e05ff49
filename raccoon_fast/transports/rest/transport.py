"""REST: sends POSTs over a pool of HTTP/1.1 connections."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from raccoon_fast.errors import (
    ConnectionLostError,
    DeliveryError,
    MessageTooLargeError,
    Outcome,
    ProtocolError,
    RaccoonError,
    TransportError,
)
from raccoon_fast.stats import TOTAL_CONN_ERR
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import Transport, worse
from raccoon_fast.transports.http_answers import CONTENT_TYPES, read_answer
from raccoon_fast.transports.rest.connection import HTTPAnswer, HTTPConnection
from raccoon_fast.transports.rest.pool import HTTPPool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raccoon_fast.events import Response
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Link, Request

__all__ = ["RestTransport"]


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
        # A POST's head up to the body's length, and the User-Agent and encoding that it was built with.
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
            # Created here, so that each process has its own after a fork.
            self._identity = self._link.identity.headers()
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
        except TransportError as error:  # it ended in the previous step
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
            except Exception as error:  # noqa: BLE001 - any error is the outcome of the attempt
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
                # The server closed the connection just as it was reused; see HTTPPool.exchange.
                task = asyncio.ensure_future(self._send_again(request, attempt, deadline_s, outcome.outcome))
                self._again.add(task)
                task.add_done_callback(self._again.discard)
                return
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        attempt.set_exception(response)

    async def _send_again(self, request: Request, attempt: Attempt, deadline_s: float, before: Outcome) -> None:
        try:
            response = await self.send(request, deadline_s - asyncio.get_running_loop().time())
        except Exception as error:  # noqa: BLE001 - any error is the outcome of the attempt
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
        # Without this header a server may choose any coding (RFC 9110, 12.5.3), but none is decoded here.
        lines.append("Accept-Encoding: identity")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Type: {content_type}", "Content-Length: "]
    return "\r\n".join(lines).encode("latin-1")
