"""An HTTP/1 connection: reads and answers one request after the other as Go's net/http does (Go 1.22, `conn.serve`).

HTTP servers for Python cannot be used here. Their parsers refuse requests that Go answers differently: a POST with an
unrelated `Upgrade` header, unknown methods, folded headers. A client that relied on that would fail only in production.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from raccoon_fast.collector import asgi
from raccoon_fast.collector.decode_errors import HandlerPanic
from raccoon_fast.collector.go_chunks import ChunkedBody
from raccoon_fast.collector.go_http import (
    MAX_HEAD_BYTES,
    Head,
    RefusedHead,
    find_end,
    parse_head,
    refuses_first_line,
)
from raccoon_fast.collector.http_answer import Answer
from raccoon_fast.collector.rest import RestApp
from raccoon_fast.collector.websocket import MAX_REQUEST_BYTES

__all__ = ["Connections", "HttpConnection"]

# The bytes of an unread body that net/http reads after the handler returns, before it gives up the connection.
_MAX_UNREAD_BYTES = 256 << 10
# The server waits forever, but here each connection holds a file descriptor of the user's program.
_IDLE_S = 3600.0
_HEAD_S = 60.0
_BODY_S = 600.0
# net/http's rstAvoidanceDelay: the client's time to read the answer before unread data resets the connection.
_LINGER_S = 0.5
_MAX_AHEAD_BYTES = 256 << 10
_MAX_CACHED_HEAD_BYTES = 4096
_MAX_LINE_ENDS = 4
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_Answering = Callable[[], Coroutine[Any, Any, Answer | None]]

_log = logging.getLogger("raccoon_fast.collector")

# Most heads repeat: those from one client differ only in the length of the body.
_parse_short_head = functools.lru_cache(maxsize=256)(parse_head)


@dataclass
class Connections:
    """The live connections and requests on the port of REST and WebSocket.

    Attributes:
        open: The open connections; each has a `transport`.
        requests: The tasks that answer requests.
    """

    open: set[Any] = field(default_factory=set)
    requests: set[asyncio.Task[None]] = field(default_factory=set)


class HttpConnection(asyncio.Protocol):
    """Serves a connection from its first request to its last, or to the upgrade. Used on the collector's event loop.

    Args:
        app: Answers requests to Raccoon's API.
        connections: The live connections and requests.
        upgrade: Makes a WebSocket connection from this one, given the transport and the handshake's head.
        inspector: An ASGI application for the paths that it serves; None without an inspector.
        is_tls: Whether the connection is encrypted.
    """

    def __init__(
        self,
        app: RestApp,
        connections: Connections,
        upgrade: Callable[[asyncio.Transport, Head], asyncio.Protocol],
        inspector: asgi.Application | None,
        *,
        is_tls: bool,
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self._app = app
        self._connections = connections
        self._upgrade = upgrade
        self._inspector = inspector
        self._is_tls = is_tls
        self._loop = asyncio.get_running_loop()
        # Unhandled data. While a single read holds all of it, it stays a bytes object, which saves copies.
        self._buffer: bytes | bytearray = b""
        self._searched = 0
        self._head: Head | None = None
        self._is_after_post = False
        # Pieces of a body of known length; one copy fewer for a large body than through the buffer.
        self._chunks: list[bytes] = []
        self._missing = 0
        self._chunked: ChunkedBody | None = None
        self._answer: Answer | None = None  # to be sent after the body is read
        self._is_busy = False
        self._is_peer_slow = False
        self._is_ended = False
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # when the timer fires

    # Methods of asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for the first request."""
        self.transport = cast("asyncio.Transport", transport)
        self._connections.open.add(self)
        self._deadline_s = self._loop.time() + _IDLE_S
        self._check_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. A request that is being answered continues, as in the server's handlers."""
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Handle the data, unless the previous request is still being answered."""
        if self._is_ended:
            return  # the connection is closing
        if not self._buffer and self._head is None:
            self._deadline_s = self._loop.time() + _HEAD_S
            self._check_deadline()
        if self._missing:
            self._chunks.append(data[: self._missing])
            data = data[self._missing :]
            self._missing -= len(self._chunks[-1])
            if self._missing:
                return
        if not self._buffer:
            self._buffer = data
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        self._advance()

    def eof_received(self) -> bool:
        """The client sends nothing more: finish a pending answer, and ignore an incomplete request."""
        return self._is_busy

    def pause_writing(self) -> None:
        """Answer no more requests while the client does not read."""
        self._is_peer_slow = True

    def resume_writing(self) -> None:
        """Resume answering."""
        self._is_peer_slow = False
        self._advance()

    # Requests.

    def _advance(self) -> None:
        assert self.transport is not None
        while not (self._is_busy or self._is_peer_slow or self._is_ended or self.transport.is_closing()):
            if self._head is None:
                if not self._read_head():
                    break
            elif not self._read_body(self._head):
                break
        if len(self._buffer) > _MAX_AHEAD_BYTES and (self._is_busy or self._is_peer_slow):
            self.transport.pause_reading()
        elif not self._is_ended and not self.transport.is_closing():
            self.transport.resume_reading()

    def _read_head(self) -> bool:
        """Read a request's head. Returns False while it is incomplete."""
        if self._is_after_post and not self._skip_line_ends():
            return False
        buffer = self._buffer
        end = find_end(buffer, self._searched)
        is_too_large = end > MAX_HEAD_BYTES or (end < 0 and len(buffer) > MAX_HEAD_BYTES)
        if is_too_large:
            self._refuse(RefusedHead(431))
            return False
        if end < 0 and self._searched == 0 and (line_end := buffer.find(b"\n")) >= 0:
            # Go refuses a request line before it reads the headers.
            refused = refuses_first_line(bytes(buffer[:line_end]))
            if refused is not None:
                self._refuse(refused)
                return False
        if end < 0:
            self._searched = len(buffer) if b"\n" in buffer else 0
            return False
        self._searched = 0
        data = bytes(buffer[:end])
        self._buffer = buffer[end:]
        try:
            head = _parse_short_head(data) if end <= _MAX_CACHED_HEAD_BYTES else parse_head(data)
        except RefusedHead as refused:
            self._refuse(refused)
            return False
        self._deadline_s = self._loop.time() + _BODY_S
        self._begin(head)
        return True

    def _skip_line_ends(self) -> bool:
        """Skip up to 4 bytes of line ends after a POST, as net/http does for old clients. Returns True once done."""
        if len(self._buffer) < _MAX_LINE_ENDS:
            return False
        self._is_after_post = False
        start = bytes(self._buffer[:_MAX_LINE_ENDS])
        skipped = _MAX_LINE_ENDS - len(start.lstrip(b"\r\n"))
        if skipped:
            self._buffer = self._buffer[skipped:]
        return True

    def _begin(self, head: Head) -> None:
        """Handle a request whose head has been read."""
        assert self.transport is not None
        self._head = head
        self._is_after_post = head.method == "POST"
        self._chunked = ChunkedBody() if head.content_length is None else None
        self._answer = None
        expects = head.has_token("expect", "100-continue")
        if not expects and head.first("expect"):
            self._send(Answer(417, closes=True), reads=False)
            return
        expects = expects and head.minor >= 1
        if self._inspector is not None and self._inspector.has(asgi.path_of(head)):
            if expects and head.content_length != 0:
                self.transport.write(_CONTINUE)
            return
        if self._app.is_handshake(head):
            self._answer = self._app.refuse_handshake(head)
            if self._answer is None:
                self._hand_over(head)
                return
        elif (refusal := self._app.early_error(head)) is not None:
            self._send(refusal, reads=False)
            return
        else:
            self._answer = self._app.answer_without_body(head)
        if self._answer is None:
            if expects and head.content_length != 0:
                self.transport.write(_CONTINUE)
        elif head.content_length != 0 and (expects or (head.content_length or 0) >= _MAX_UNREAD_BYTES):
            self._send(self._answer.closing(), reads=False)

    def _read_body(self, head: Head) -> bool:
        """Read the body of the current request. Returns False while it is incomplete."""
        answer = self._answer
        is_broken = False
        if self._chunked is None:
            size = head.content_length or 0
            is_complete = True
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            try:
                self._chunked.feed(self._buffer)
            except ValueError:
                is_broken = True
            is_complete = self._chunked.is_complete
            size = len(self._chunked.data)
        if size > (MAX_REQUEST_BYTES if answer is None else _MAX_UNREAD_BYTES):
            self._send(self._app.too_large(head) if answer is None else answer.closing(), reads=False)
            return False
        if is_broken:
            self._send(self._app.broken_body(head) if answer is None else answer.closing(), reads=False)
            return False
        if not is_complete or not self._take_rest(size):
            return False
        body = b"".join(self._chunks) if self._chunked is None else bytes(self._chunked.data)
        self._chunks.clear()
        self._head = None
        if answer is None:
            self._answer_request(head, body)
        else:
            self._send(answer, head=head)
        return True

    def _take_rest(self, size: int) -> bool:
        """Take the buffer's part of a body of known length. Returns whether the body is complete."""
        if self._chunked is None and not self._chunks:
            self._chunks.append(bytes(self._buffer[:size]))
            self._buffer = self._buffer[size:]
            self._missing = size - len(self._chunks[0])
        return not self._missing

    def _answer_request(self, head: Head, body: bytes) -> None:
        assert self.transport is not None
        if self._inspector is not None and self._inspector.has(asgi.path_of(head)):
            answer: _Answering = functools.partial(asgi.answer, self._inspector, head, body, is_tls=self._is_tls)
        else:
            source = self._app.source_at_once(head)
            if source is not None:
                try:
                    self.transport.write(self._app.answer_at_once(source, head, body))
                except HandlerPanic as panic:
                    self._panic(panic)
                    return
                self._end_request(head.closes)
                return
            answer = functools.partial(self._app.answer, head, body, self.transport)
        self._is_busy = True
        task = self._loop.create_task(self._respond(head, answer))
        self._connections.requests.add(task)
        task.add_done_callback(self._connections.requests.discard)

    async def _respond(self, head: Head, respond: _Answering) -> None:
        try:
            answer = await respond()
        except asyncio.CancelledError:
            return  # the collector is closing, and the connection is already closed
        except HandlerPanic as panic:
            self._panic(panic)
            return
        assert self.transport is not None
        if answer is None or self.transport.is_closing():
            return  # the client waits forever, or has disconnected
        self._is_busy = False
        self._send(answer, head=head)
        self._advance()

    # Answers.

    def _send(self, answer: Answer, *, head: Head | None = None, reads: bool = True) -> None:
        """Write an answer. With `reads=False` the rest of the request is not read, and the connection is closed."""
        assert self.transport is not None
        head = head or self._head
        assert head is not None
        self.transport.write(answer.on_the_wire(head))
        if not reads:
            self._linger()
        else:
            self._end_request(head.closes or answer.closes)

    def _end_request(self, closes: bool) -> None:
        assert self.transport is not None
        self._head = None
        if closes:
            self._is_ended = True
            self.transport.close()
        else:
            self._deadline_s = self._loop.time() + (_HEAD_S if self._buffer else _IDLE_S)

    def _refuse(self, refused: RefusedHead) -> None:
        assert self.transport is not None
        _log.debug("refused a request: %s", refused)
        self.transport.write(refused.answer)
        self._linger()

    def _panic(self, panic: Exception) -> None:
        assert self.transport is not None
        _log.error("%s; the connection is closed without an answer, as a Raccoon server does", panic)
        self._is_ended = True
        self.transport.abort()

    def _linger(self) -> None:
        """Close the connection after giving the client time to read the answer: closing with unread data resets it."""
        assert self.transport is not None
        self._is_ended = True
        self._head = None
        self._chunks.clear()
        self._missing = 0
        self._buffer = b""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._deadline_s = self._loop.time() + _LINGER_S
            self._check_deadline()
        else:
            self.transport.close()

    # Upgrade and deadlines.

    def _hand_over(self, head: Head) -> None:
        """Become a WebSocket connection."""
        assert self.transport is not None
        transport = self.transport
        self._leave()
        self._is_ended = True
        if self._buffer:
            # gorilla/websocket: "client sent data before handshake is complete"
            _log.warning("a client sent data with its handshake: the connection is closed, as a Raccoon server does")
            transport.abort()
            return
        transport.set_protocol(self._upgrade(transport, head))

    def _leave(self) -> None:
        self._connections.open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        self._check_deadline()

    def _check_deadline(self) -> None:
        """End the connection at its deadline; a request that is being answered has no deadline."""
        if self._timer is not None:
            if self._due_s <= self._deadline_s:
                return  # the timer checks again when it fires
            self._timer.cancel()
        left_s = self._deadline_s - self._loop.time()
        if self._is_busy and left_s <= 0:
            left_s = _IDLE_S
        if left_s > 0:
            self._due_s = self._loop.time() + left_s
            # For delays under a millisecond uvloop returns a handle that does not know its time.
            self._timer = self._loop.call_later(left_s, self._timer_fired)
        elif self.transport is not None:
            self._timer = None
            self.transport.close() if self._is_ended else self.transport.abort()
