"""One HTTP/1.1 client connection on the event loop: a request at a time, answers parsed by httptools (RFC 9112)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, cast

import httptools

from raccoon_fast.errors import AckTimeoutError, ProtocolError
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_BYTES_SENT
from raccoon_fast.transports.base import GRACE_S, MAX_ANSWER_BYTES, lost_error

if TYPE_CHECKING:
    from raccoon_fast.errors import TransportError
    from raccoon_fast.transports.base import Link

__all__ = ["HTTPAnswer", "HTTPConnection"]

#: Names and values of one answer's headers together; protects from a peer that sends headers without end.
MAX_HEADER_BYTES = 64 * 1024


class HTTPAnswer(NamedTuple):
    """A final (not 1xx) answer. Header names are lower case; `written_s` is time.monotonic() of its request's write."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    written_s: float

    def header(self, name: bytes) -> str:
        """The first value of a header, or ""."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


class HTTPConnection(asyncio.Protocol):
    """A connection that carries one exchange at a time.

    Owned by the event loop it was made on. After a failed or abandoned exchange the connection is closed: an answer
    that comes late can never be taken for the answer to a later request.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._lost: TransportError | None = None
        self._waiter: asyncio.Future[HTTPAnswer] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._until_close = False
        self._answered = False
        self._written_s = 0.0
        self.reusable = False

    @property
    def began_answer(self) -> bool:
        """Whether any byte of the current exchange's answer has come."""
        return self._answered

    async def exchange(self, message: bytes | memoryview, deadline_s: float) -> HTTPAnswer:
        """Write one request and wait for its answer.

        Args:
            message: Head and body, one contiguous buffer; referenced until this returns or raises.
            deadline_s: Loop time by which the answer must be complete.

        Returns:
            The answer. `reusable` then says whether the connection may carry another exchange.

        Raises:
            AckTimeoutError, ConnectionLostError, ProtocolError, TLSError: The connection is closed. On cancellation it
                is closed too.
        """
        if self._lost is not None:
            raise self._lost
        transport = self.transport
        assert transport is not None
        self.reusable = False
        self._answered = False
        self._parser = httptools.HttpResponseParser(self)
        self._waiter = self._loop.create_future()
        self._written_s = time.monotonic()
        if not transport.is_closing():  # or connection_lost is on its way, with the reason
            transport.write(message)
            self._link.stats.count(TOTAL_BYTES_SENT, len(message))
        timer = self._loop.call_at(deadline_s, self._loop.call_later, GRACE_S, self._expire, self._waiter)
        try:
            answer = await self._waiter
        except BaseException:
            self.abort()
            raise
        finally:
            timer.cancel()
            self._waiter = None
        # A body that is still being written cannot be taken back: the connection is of no further use, and the buffer
        # must not be touched while the transport holds it.
        if self._parser is None or transport.get_write_buffer_size() or not self.reusable:
            self.abort()
        return answer

    def abort(self) -> None:
        """Close at once. A request in flight fails with ConnectionLostError. Idempotent."""
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._link.stats.count(TOTAL_BYTES_RECIEVED, len(data))
        if self._waiter is None or self._waiter.done() or self._parser is None:
            # Bytes nobody asked for: whatever comes next could be mistaken for another request's answer.
            self.abort()
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error.__context__, ProtocolError) else None
            self._fail(cause or ProtocolError(f"{self._link.address} did not answer in HTTP/1.1: {error}"))
        except httptools.HttpParserUpgrade:
            self._fail(ProtocolError(f"{self._link.address} switched protocols in answer to a POST"))

    def eof_received(self) -> bool:
        if self._until_close and self._waiter is not None and not self._waiter.done():
            self._finish(reusable=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort()  # else Python 3.10 takes a TLS transport for open still, and warns of it
        self._lost = lost_error(exc, self._link.address)
        self._fail(self._lost)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._headers = []
        self._header_bytes = 0
        self._body = []
        self._body_bytes = 0
        self._until_close = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ProtocolError(f"{self._link.address} answered with over {MAX_HEADER_BYTES} bytes of headers")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        # RFC 9112 6.3: without a length and without chunks the body ends with the connection.
        self._until_close = not any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_ANSWER_BYTES:
            raise ProtocolError(f"{self._link.address} answered with over {MAX_ANSWER_BYTES} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._parser.get_status_code() >= 200:  # 1xx only announces the answer (RFC 9110 15.2)
            self._finish(reusable=self._parser.should_keep_alive())

    def _finish(self, *, reusable: bool) -> None:
        waiter, parser = self._waiter, self._parser
        if waiter is None or waiter.done() or parser is None:
            self.reusable = False  # a second answer to one request
            self._parser = None
            return
        self.reusable = reusable
        body = b"".join(self._body)
        waiter.set_result(HTTPAnswer(parser.get_status_code(), self._headers, body, self._written_s))

    def _expire(self, waiter: asyncio.Future[HTTPAnswer]) -> None:
        if not waiter.done():
            waited_s = time.monotonic() - self._written_s
            waiter.set_exception(AckTimeoutError(f"no answer from {self._link.address} within {waited_s:.3g} s"))

    def _fail(self, error: BaseException) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
