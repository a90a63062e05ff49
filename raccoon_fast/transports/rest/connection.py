"""One HTTP/1.1 client connection: one request at a time, answers parsed by httptools (RFC 9112)."""

from __future__ import annotations

import asyncio
import copy
import functools
import re
import time
from typing import TYPE_CHECKING, NamedTuple, cast

import httptools

from raccoon_fast.errors import AckTimeoutError, Outcome, ProtocolError
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_BYTES_SENT
from raccoon_fast.transports.base import MAX_ANSWER_BYTES, lost_error
from raccoon_fast.transports.deadline_timer import DeadlineTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.errors import RaccoonError, TransportError
    from raccoon_fast.transports.base import Link, Request

__all__ = ["HTTPAnswer", "HTTPConnection", "resolve"]

#: The limit in bytes for the names and values of one answer's headers, in case they never end.
MAX_HEADER_BYTES = 64 * 1024
# The most overhead per byte of the body: a chunk of one byte is "1", CRLF, the byte, CRLF.
_MOST_FRAMING = 8

# Not allowed in a field's value (RFC 9110, 5.5). A folded line arrives without its line break, as RFC 9112, 5.2
# requires.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search

# Without any of these the body ends with the connection (RFC 9112 6.3).
_FRAMING = (b"content-length", b"transfer-encoding")


class HTTPAnswer(NamedTuple):
    """A final (not 1xx) answer. Header names are lower case; `written_s` is time.monotonic() of its request's write."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    written_s: float

    def header(self, name: str) -> str:
        """The first value of a header, or ""."""
        octets = name.encode("ascii")
        for key, value in self.headers:
            if key == octets:
                return value.decode("latin-1")
        return ""


# The same as HTTPAnswer(…), but without its call.
_new_answer = tuple.__new__


class _Known(NamedTuple):
    """The head of a parsed answer. Data of the same length that begins with the same bytes has the same meaning."""

    head: bytes
    size: int
    status: int
    headers: list[tuple[bytes, bytes]]


class HTTPConnection(asyncio.Protocol):
    """A connection that carries one exchange at a time.

    Owned by the event loop on which it was created. After a failed or abandoned exchange the connection is closed, so
    that a late answer can never be taken for the answer to a later request.

    Args:
        link: The server.
        first: Called with the connection as soon as it is made; calls `begin`.
    """

    def __init__(self, link: Link, first: Callable[[HTTPConnection], None] | None = None) -> None:
        self._link = link
        self._first = first
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._lost: TransportError | None = None
        self._ended: Callable[[HTTPAnswer | RaccoonError], None] | None = None
        self._deadline_s = 0.0
        self._timer = DeadlineTimer(self._expire)
        self._known: _Known | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._answer_bytes = 0  # of all data of the current exchange
        self._framed = False
        self._until_close = False
        self._answer: HTTPAnswer | None = None
        self._answered = False
        self._received = False
        self._written = False
        self._written_s = 0.0
        self.reusable = False

    @property
    def is_open(self) -> bool:
        """Whether it is still connected."""
        return self._lost is None

    @property
    def began_answer(self) -> bool:
        """Whether any byte of the current exchange's answer has come."""
        return self._answered

    def begin(
        self,
        message: bytes | memoryview,
        deadline_s: float,
        ended: Callable[[HTTPAnswer | RaccoonError], None],
        request: Request | None = None,
    ) -> None:
        """Write one request.

        Args:
            message: Head and body, one contiguous buffer; referenced until `ended` is called.
            deadline_s: Loop time by which the answer must be complete.
            ended: Called once, from a callback of the event loop: with the answer (`reusable` then says whether the
                connection may carry another exchange), or, when the connection is closed, with the AckTimeoutError,
                ConnectionLostError, ProtocolError or TLSError that says why.
            request: Its `was_written` and `resends` are kept.

        Raises:
            ConnectionLostError, TLSError: The connection was closed before; nothing was written.
        """
        if self._lost is not None:
            lost = copy.copy(self._lost)
            lost.outcome = Outcome.NOT_DELIVERED
            raise lost
        transport = self.transport
        assert transport is not None
        self.reusable = False
        self._answered = False
        self._answer_bytes = 0
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
            self._parser.set_dangerous_leniencies(lenient_headers=True)  # folded lines; on_header refuses the rest
        self._ended = ended
        self._written_s = time.monotonic()
        self._written = not transport.is_closing()  # or connection_lost is on its way, with the reason
        if self._written:
            if request is not None:
                request.resends += request.was_written
                request.was_written = True
            transport.write(message)
            self._link.stats.count(TOTAL_BYTES_SENT, len(message))
        self._deadline_s = deadline_s
        if deadline_s < self._timer.due_s:
            self._timer.watch(deadline_s)

    async def exchange(
        self, message: bytes | memoryview, deadline_s: float, request: Request | None = None
    ) -> HTTPAnswer:
        """Write one request and wait for its answer.

        Args:
            message: As `begin`.
            deadline_s: As `begin`.
            request: As `begin`.

        Returns:
            The answer; see `reusable`.

        Raises:
            AckTimeoutError, ConnectionLostError, ProtocolError, TLSError: The connection is closed. On cancellation it
                is closed too.
        """
        waiter: asyncio.Future[HTTPAnswer] = self._loop.create_future()
        self.begin(message, deadline_s, functools.partial(resolve, waiter), request)
        return await self.wait(waiter)

    async def wait(self, waiter: asyncio.Future[HTTPAnswer]) -> HTTPAnswer:
        """The second half of `exchange`, for a request that was begun with `resolve` and this future."""
        try:
            return await waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Close at once. A request in flight fails with ConnectionLostError. Idempotent."""
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    def move_on(self) -> None:
        """Close once the exchange in flight, if any, has ended: the next connection goes to another address."""
        ended = self._ended
        if ended is None:
            self.abort()
            return

        def ended_here(outcome: HTTPAnswer | RaccoonError) -> None:
            self.abort()
            ended(outcome)

        self._ended = ended_here

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        first, self._first = self._first, None
        if first is not None:
            # Now, in one piece with the end of the TLS handshake: a server that refuses our certificate may reset the
            # connection behind its alert, and a write that fails for that would end it with the alert unread.
            first(self)

    def data_received(self, data: bytes) -> None:
        self._link.stats.count(TOTAL_BYTES_RECIEVED, len(data))
        self._received = True
        if self._ended is None or self._parser is None:
            # Bytes that answer no request: the data after them could be mistaken for another request's answer.
            self.abort()
            return
        known = self._known
        if known is not None and not self._answered and len(data) == known.size and data.startswith(known.head):
            self._answered = self.reusable = True
            body = data[len(known.head) :]
            self._end(_new_answer(HTTPAnswer, (known.status, known.headers, body, self._written_s)))
            return
        is_first, self._answered = not self._answered, True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error.__context__, ProtocolError) else None
            self._fail(cause or ProtocolError(f"{self._link.address} did not answer in HTTP/1.1: {error}"))
        except httptools.HttpParserUpgrade:
            self._fail(ProtocolError(f"{self._link.address} switched protocols in answer to a POST"))
        else:
            if self._answer is not None:
                if is_first and self.reusable:
                    self._learn(data, self._answer)
                self._end(self._answer)
                return
            # The parser keeps a header until it is complete, and does not report reason phrases and chunk extensions.
            self._answer_bytes += len(data)
            if self._answer_bytes > MAX_HEADER_BYTES + (_MOST_FRAMING + 1) * self._body_bytes:
                said = f"{self._link.address} answered with over {MAX_HEADER_BYTES} bytes of headers without their end"
                self._fail(ProtocolError(said))

    def eof_received(self) -> bool:
        if self._until_close and self._ended is not None:
            self._complete(reusable=False)
            assert self._answer is not None
            self._end(self._answer)
        return False

    def _learn(self, data: bytes, answer: HTTPAnswer) -> None:
        """Remember the head of an answer that arrived in one piece: a server repeats it for about a second."""
        head = data[: len(data) - len(answer.body)]
        length = (b"content-length", b"%d" % len(answer.body))
        if answer.status == 200 and length in answer.headers and head.endswith(b"\r\n\r\n"):
            self._known = _Known(head, len(data), answer.status, answer.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort()  # otherwise Python 3.10 considers a TLS transport open, and warns
        self._lost = lost_error(exc, self._link.address, is_silent=not self._received)
        self._timer.stop()
        lost = copy.copy(self._lost)
        if not self._written:
            lost.outcome = Outcome.NOT_DELIVERED
        self._end(lost)

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._answer is not None:
            self.reusable = False  # the bytes after it answer none of our requests (RFC 9112, 9.2)
        self._headers = []
        self._header_bytes = 0
        self._body = []
        self._body_bytes = 0
        self._framed = self._until_close = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ProtocolError(f"{self._link.address} answered with over {MAX_HEADER_BYTES} bytes of headers")
        if _CONTROL(value):
            raise ProtocolError(f"{self._link.address} did not answer in HTTP/1.1: a control character in a header")
        name = name.lower()
        self._headers.append((name, value))
        if name in _FRAMING:
            self._framed = True

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._until_close = not self._framed and self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_ANSWER_BYTES:
            raise ProtocolError(f"{self._link.address} answered with over {MAX_ANSWER_BYTES} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._parser.get_status_code() >= 200:  # 1xx only announces the answer (RFC 9110 15.2)
            self._complete(reusable=self._parser.should_keep_alive())

    def _complete(self, *, reusable: bool) -> None:
        assert self._parser is not None
        # A second answer to one request makes the connection unusable, and is not read.
        self.reusable = reusable and self._answer is None
        if self._answer is None:
            body = b"".join(self._body)
            self._answer = HTTPAnswer(self._parser.get_status_code(), self._headers, body, self._written_s)

    def _expire(self, now_s: float) -> float | None:
        if self._ended is None:
            return None
        if self._deadline_s > now_s:
            return self._deadline_s
        waited_s = time.monotonic() - self._written_s
        self._end(AckTimeoutError(f"no answer from {self._link.address} within {waited_s:.3g} s"))
        return None

    def _fail(self, error: ProtocolError) -> None:
        """The last data is not HTTP; a complete answer before it is still valid."""
        self.reusable = False
        self._end(self._answer or error)

    def _end(self, outcome: HTTPAnswer | RaccoonError) -> None:
        """End the exchange, if there is one."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        assert self.transport is not None
        self._answer = None
        # A body that is still being written cannot be withdrawn: the connection cannot be used again, and the buffer
        # must not change while the transport holds it.
        if not self.reusable or not isinstance(outcome, HTTPAnswer) or self.transport.get_write_buffer_size():
            self.abort()
        ended(outcome)


def resolve(waiter: asyncio.Future[HTTPAnswer], outcome: HTTPAnswer | RaccoonError) -> None:
    """Give the outcome of an exchange to its waiter, unless that has ended."""
    if waiter.done():
        return
    if isinstance(outcome, HTTPAnswer):
        waiter.set_result(outcome)
    else:
        waiter.set_exception(outcome)
