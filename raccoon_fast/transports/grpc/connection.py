"""One HTTP/2 client connection (RFC 9113): many exchanges at a time, with bodies sent without copying.

Supports only what unary calls need: no push, no priorities, no request trailers. A body is sent in
frames as the server's windows allow, each a frame header and a view of the body.

Everything here runs on the event loop on which the connection was opened.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from typing import TYPE_CHECKING

from raccoon_fast.errors import (
    AckTimeoutError,
    ConnectError,
    ConnectionLostError,
    Outcome,
    ProtocolError,
    TransportError,
)
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_CONN_ERR
from raccoon_fast.transports.base import MAX_ANSWER_BYTES, lost_error
from raccoon_fast.transports.grpc import frames as wire
from raccoon_fast.transports.grpc.frames import ErrorCode
from raccoon_fast.transports.grpc.shapes import AnswerShape
from raccoon_fast.transports.grpc.streams import HTTP2Stream
from raccoon_fast.transports.pinger import Keepalive, PolitePinger
from raccoon_fast.transports.shared_connection import SharedConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.errors import RaccoonError
    from raccoon_fast.transports.base import Link, Request
    from raccoon_fast.transports.grpc.streams import HTTP2Answer

__all__ = ["HTTP2Connection", "RefusedError"]

# The size of the largest answer with its frames: a larger answer is an error before the window is used up.
_WINDOW = MAX_ANSWER_BYTES + wire.DEFAULT_FRAME_SIZE
_SETTINGS = (
    (wire.ENABLE_PUSH, 0),
    (wire.INITIAL_WINDOW_SIZE, _WINDOW),
    (wire.MAX_HEADER_LIST_SIZE, wire.MAX_BLOCK_BYTES),
)
# The connection's window is refilled when this much of it was used.
_REFILL = wire.DEFAULT_WINDOW // 2
NO_PINGS = Keepalive(None, 0.0)


class RefusedError(ConnectionLostError):
    """The server says that it did not process a request, which may go to another connection (RFC 9113, 8.7)."""

    outcome = Outcome.NOT_DELIVERED


class HTTP2Connection(SharedConnection):
    """A connection from its preface to its end; it is never reopened.

    Args:
        link: The server.
        keepalive: Our pings.
        has_table: Whether the server may refer to header fields that it sent before; then every block is decoded.

    Attributes:
        error: Why it is closed; None while it is open.
        has_answered: Whether it carried a whole exchange.
        needs_table: Whether it ended because the server refers to earlier fields although it was told not to, as h2o
            2.2 does: the next connection needs a table.
    """

    def __init__(self, link: Link, keepalive: Keepalive = NO_PINGS, *, has_table: bool = False) -> None:
        super().__init__(link)
        self._keepalive = keepalive
        self._table_bytes = wire.TABLE_BYTES if has_table else 0
        self._read_block = wire.TableReader().read_block if has_table else wire.read_block
        self.needs_table = has_table
        self.error: TransportError | None = None
        self.has_answered = False
        self._frames = wire.FrameReader()
        self._shape: AnswerShape | None = None
        self._streams: dict[int, HTTP2Stream] = {}
        self._next_id = 1
        self._leaving = False
        # Requests that wait because of the server's limit of streams, and open ones that are not completely written.
        self._queue: deque[HTTP2Stream] = deque()
        self._unwritten: dict[int, HTTP2Stream] = {}
        # The server's settings, and its window for the connection.
        self._max_streams = wire.MAX_STREAM
        self._first_window = wire.DEFAULT_WINDOW
        self._frame_size = wire.DEFAULT_FRAME_SIZE
        self._window = wire.DEFAULT_WINDOW
        self._used = 0  # of our own
        self._received_s = 0.0
        self._answered_s = self._loop.time()
        self._pinger = PolitePinger(
            keepalive,
            self._ping,
            self._pong_missed,
            link.logger,
            lambda: self._answered_s,
            lambda: bool(self._streams),
        )

    @property
    def usable(self) -> bool:
        """Whether it accepts further exchanges."""
        return self.error is None and not self._leaving

    async def open(self, timeout_s: float) -> None:
        """Wait for the server's settings, which come first.

        Raises:
            ConnectError, TLSError: They did not come; the connection is closed.
        """
        late = f"{self._link.address} did not greet as an HTTP/2 server within {timeout_s:.3g} s"
        await self._wait_opened(timeout_s, late)
        if self.error is None:
            self._pinger.start()

    def begin(
        self,
        head: bytes,
        message: bytes | memoryview,
        deadline_s: float,
        ended: Callable[[HTTP2Answer | RaccoonError], None],
        request: Request | None = None,
    ) -> HTTP2Stream:
        """Send one request, or queue it until the server accepts one more.

        Args:
            head: The header block, without references to other blocks.
            message: The body, not empty, contiguous bytes; referenced until `ended` is called.
            deadline_s: Loop time by which the answer must be complete.
            ended: Called once, from a callback of the event loop: with the answer, or the AckTimeoutError,
                ConnectionLostError (RefusedError) or ProtocolError that says why there is none.
            request: Its `was_written` and `resends` are kept.

        Raises:
            TransportError: The connection was closed before; RefusedError if it is about to be.
        """
        if self.error is not None:
            raise copy.copy(self.error)
        if self._leaving:
            raise RefusedError(f"{self._link.address} closes the connection and accepts no further requests on it")
        stream = HTTP2Stream(head, message, self.now_s(), deadline_s, ended, request)
        if self._queue or len(self._streams) >= self._max_streams:
            self._queue.append(stream)
        else:
            self._start(stream)
        if deadline_s < self._timer.due_s:
            self._timer.watch(deadline_s)
        return stream

    def cancel(self, stream: HTTP2Stream) -> None:
        """Cancel an exchange, and tell the server to drop it."""
        if not stream.has_ended:
            stream.end(None)
            self._reset(stream, ErrorCode.CANCEL)

    def leave(self) -> None:
        """Say goodbye and close; requests in flight fail with ConnectionLostError. Idempotent."""
        transport = self.transport
        if self.error is None and transport is not None and not transport.get_write_buffer_size():
            self._send(wire.GOAWAY, 0, 0, bytes(8))
            transport.close()
        self._end(lost_error(None, self._link.address))

    def move_on(self) -> None:
        """See SharedConnection.move_on. Unsent requests are refused, and therefore sent on the next connection."""
        self._leaving = True
        refused = [*self._queue]
        self._queue.clear()
        for stream in refused:
            self._forget(stream)
            stream.end(RefusedError(f"the connection to {self._link.address} moves to another address"))
        self._pump()

    async def close(self) -> None:
        """As `leave`, and wait at most a second for the connection to end. Idempotent."""
        self.leave()
        await self._wait_lost()

    def _end(self, error: TransportError) -> None:
        if self.error is not None:
            return
        self.error = error
        self._stop(error)
        self._pinger.stop()
        streams = [*self._streams.values(), *self._queue]
        self._streams.clear()
        self._queue.clear()
        for stream in streams:
            own = copy.copy(error)
            if not stream.is_written:
                own.outcome = Outcome.NOT_DELIVERED
            stream.end(own)
        self._unwritten.clear()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        tls = self.transport.get_extra_info("ssl_object")
        chosen = "h2" if tls is None else tls.selected_alpn_protocol()
        if chosen != "h2":  # RFC 9113, 3.2; a server that chose nothing may use any protocol
            self._link.stats.count(TOTAL_CONN_ERR, 1)
            said = f"it chose {chosen or 'no protocol'} by ALPN, not h2; is this the port for gRPC?"
            self._end(ConnectError(f"{self._link.address} does not offer HTTP/2: {said}"))
            return
        settings = wire.encode_settings(((wire.HEADER_TABLE_SIZE, self._table_bytes), *_SETTINGS))
        self.transport.write(wire.PREFACE + wire.encode_frame(wire.SETTINGS, 0, 0, settings))

    def data_received(self, data: bytes) -> None:
        self._link.stats.count(TOTAL_BYTES_RECIEVED, len(data))
        self._received_s = self._loop.time()
        if self._shape is not None and self._frames.is_between:
            data = self._shaped_received(self._shape, data)
        elif not self._table_bytes and self._opened.done():
            self._shape = AnswerShape.of(data)
        if data:
            self._frames_received(data)
        if self.error is None:
            self._pump()

    def _frames_received(self, data: bytes) -> None:
        try:
            for kind, flags, stream_id, payload in self._frames.feed(data):
                self._frame_received(kind, flags, stream_id, payload)
                if self.error is not None:
                    return
        except wire.FrameError as error:
            self._break(error)

    def _shaped_received(self, shape: AnswerShape, data: bytes) -> bytes:
        """Take the answers with the same shape as the last one without parsing them; returns the rest."""
        at, size = 0, len(data)
        streams = self._streams
        while at < size and self.error is None:
            stream_id = shape.stream_at(data, at)
            stream = streams.get(stream_id)
            if stream is not None and stream.is_written and stream.is_unanswered:
                del streams[stream_id]
                self._take_window(shape.body_bytes)
                self.has_answered = True
                self._answered_s = self._received_s
                stream.end(shape.answer_at(data, at, stream.written_s))
                at += shape.nbytes
                continue
            end = wire.frame_end(data, at)
            if end > size or data[at + 3] == wire.HEADERS:
                self._shape = AnswerShape.of(data[at:])
                break
            self._frames_received(data[at:end])
            at = end
        return data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.error is not None:
            return
        if self._streams or not self._leaving:
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        error = lost_error(exc, self._link.address, is_silent=not self._opened.done())
        if not self._opened.done() and isinstance(error, ConnectionLostError):
            error = ConnectError(f"{self._link.address} closed the connection before its greeting as an HTTP/2 server")
        self._end(error)

    # Incoming frames

    def _frame_received(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind != wire.SETTINGS and not self._opened.done():
            raise wire.FrameError("no SETTINGS for a greeting")
        if kind == wire.HEADERS:
            self._block_received(stream_id, flags, payload)
        elif kind == wire.DATA:
            self._data_received(stream_id, flags, payload)
        elif kind == wire.WINDOW_UPDATE:
            self._widened(stream_id, int.from_bytes(payload, "big") & wire.MAX_WINDOW, len(payload))
        elif kind == wire.SETTINGS:
            self._settings_received(flags, stream_id, payload)
        elif kind == wire.PING:
            if len(payload) != 8 or stream_id:
                raise wire.FrameError(f"PING of {len(payload)} bytes on stream {stream_id}")
            if flags & wire.ACK:
                self._pinger.pong(payload)
            else:
                self._send(wire.PING, wire.ACK, 0, payload)
        elif kind == wire.RST_STREAM:
            self._reset_received(stream_id, payload)
        elif kind == wire.GOAWAY:
            self._goaway_received(payload)
        elif kind == wire.PUSH_PROMISE:
            raise wire.FrameError("PUSH_PROMISE, which it was told not to send")
        # Frames of other types must be ignored (RFC 9113, 4.1); so is PRIORITY.

    def _block_received(self, stream_id: int, flags: int, block: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)  # an answer to a cancelled request is ignored
        try:
            fields = self._read_block(block)
            if stream is not None and stream.block_received(fields, bool(flags & wire.END_STREAM)):
                self._ended(stream)
        except wire.MalformedError as error:
            self._refuse(stream, error)

    def _refuse(self, stream: HTTP2Stream | None, error: wire.MalformedError) -> None:
        """The data of a stream is not a valid answer; other streams are not affected (RFC 9113, 8.1.1)."""
        if stream is not None:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR)
            stream.end(ProtocolError(f"{self._link.address} broke HTTP/2: {error}"))

    def _data_received(self, stream_id: int, flags: int, payload: bytes) -> None:
        self._take_window(len(payload))
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        if flags & wire.PADDED:
            payload = wire.strip_padding(payload, wire.PADDED)
        is_end = bool(flags & wire.END_STREAM)
        try:
            has_ended = stream.data_received(payload, is_end)
        except wire.MalformedError as error:
            self._refuse(stream, error)
            return
        if has_ended and is_end:
            self._ended(stream)
        elif has_ended:
            self._reset(stream, ErrorCode.CANCEL)  # the rest is ignored: the server may stop sending

    def _take_window(self, nbytes: int) -> None:
        self._used += nbytes
        if self._used >= _REFILL:
            self._send(wire.WINDOW_UPDATE, 0, 0, self._used.to_bytes(4, "big"))
            self._used = 0

    def _check_known(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id >= self._next_id:
            raise wire.FrameError(f"a frame of stream {stream_id}, which was never opened")

    def _ended(self, stream: HTTP2Stream) -> None:
        self.has_answered = True
        self._answered_s = self._received_s
        if stream.is_written:
            self._forget(stream)
        else:
            self._reset(stream, ErrorCode.NO_ERROR)  # the rest is not needed (RFC 9113, 8.1)

    def _settings_received(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or (flags & wire.ACK and payload):
            raise wire.FrameError(f"SETTINGS of {len(payload)} bytes on stream {stream_id}")
        if flags & wire.ACK:
            return
        for name, value in wire.read_settings(payload):
            if name == wire.MAX_CONCURRENT_STREAMS:
                self._max_streams = value
            elif name == wire.INITIAL_WINDOW_SIZE:
                if value > wire.MAX_WINDOW:
                    raise _too_wide(value)
                for stream in self._streams.values():
                    stream.window += value - self._first_window
                    if stream.window > wire.MAX_WINDOW:
                        raise _too_wide(stream.window)
                self._first_window = value
            elif name == wire.MAX_FRAME_SIZE:
                if not wire.DEFAULT_FRAME_SIZE <= value < 1 << 24:
                    raise wire.FrameError(f"frames of {value} bytes")
                self._frame_size = value
        self._send(wire.SETTINGS, wire.ACK, 0)
        if not self._opened.done():
            self._opened.set_result(None)

    def _widened(self, stream_id: int, more: int, size: int) -> None:
        if size != 4 or not more:
            raise wire.FrameError(f"WINDOW_UPDATE of {size} bytes, by {more}")
        if stream_id:
            stream = self._streams.get(stream_id)
            if stream is None:
                self._check_known(stream_id)
                return
            stream.window += more
            window = stream.window
        else:
            self._window += more
            window = self._window
        if window > wire.MAX_WINDOW:
            raise _too_wide(window)

    def _reset_received(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise wire.FrameError(f"RST_STREAM of {len(payload)} bytes")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        self._forget(stream)
        code = int.from_bytes(payload, "big")
        kind = RefusedError if code == ErrorCode.REFUSED_STREAM else ConnectionLostError
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        stream.end(kind(f"{self._link.address} reset the call: {ErrorCode.name_of(code)}"))

    def _goaway_received(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise wire.FrameError(f"GOAWAY of {len(payload)} bytes")
        self._leaving = True
        last = int.from_bytes(payload[:4], "big") & wire.MAX_STREAM
        code = int.from_bytes(payload[4:8], "big")
        words = self._link.words(payload[8:])
        said = f"{self._link.address} closes the connection: {ErrorCode.name_of(code)} {words}".rstrip()
        refused = [*(stream for stream in self._streams.values() if stream.id > last), *self._queue]
        self._queue.clear()
        if code != ErrorCode.NO_ERROR:
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        for stream in refused:
            self._forget(stream)
            stream.end(RefusedError(said))

    def _break(self, error: wire.FrameError) -> None:
        """The server violates HTTP/2."""
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        address = self._link.address
        self.needs_table |= isinstance(error, wire.TableError)
        if self._opened.done():
            self._send(wire.GOAWAY, 0, 0, bytes(4) + int(error.code).to_bytes(4, "big"))
            self._end(ProtocolError(f"{address} broke HTTP/2: {error}"))
        else:
            self._end(ConnectError(f"{address} does not speak HTTP/2: {error}; is this the port for gRPC?"))

    # Outgoing frames

    def _pump(self) -> None:
        while self._queue and len(self._streams) < self._max_streams and not self._leaving:
            stream = self._queue.popleft()
            if not stream.has_ended:
                self._start(stream)
        if self._unwritten:
            for stream in [*self._unwritten.values()]:
                if self._window <= 0 or not self._writable:
                    break
                if stream.id in self._unwritten:  # a write may call resume_writing, and so this method again
                    self._write(stream, [])
        if self._leaving and not self._streams and self.error is None:
            self.leave()

    def _start(self, stream: HTTP2Stream) -> None:
        stream.id = self._next_id
        self._next_id += 2
        if self._next_id > wire.MAX_STREAM:
            self._leaving = True
        stream.window = self._first_window
        self._streams[stream.id] = stream
        size = stream.size
        if self._writable and size <= self._window and size <= stream.window and size <= self._frame_size:
            self._window -= size
            buffers = stream.whole_frames(self._frame_size)
            nbytes = size + sum(map(len, buffers[:-1]))
            self._put(buffers, nbytes)
            return
        self._unwritten[stream.id] = stream
        self._write(stream, stream.head_frames(self._frame_size))

    def _write(self, stream: HTTP2Stream, buffers: list[bytes | memoryview]) -> None:
        """Write these frames, and as much of the body as the windows allow."""
        if self._writable:
            self._window -= stream.body_frames(self._window, self._frame_size, buffers)
            if stream.is_written:
                del self._unwritten[stream.id]
        if buffers:
            self._put(buffers, sum(map(len, buffers)))

    def _send(self, kind: int, flags: int, stream_id: int, payload: bytes = b"") -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._write_held()
        transport.write(wire.encode_frame(kind, flags, stream_id, payload))
        self._answer_written()

    def _reset(self, stream: HTTP2Stream, code: ErrorCode) -> None:
        """End the stream on our side."""
        if stream.id:
            self._send(wire.RST_STREAM, 0, stream.id, int(code).to_bytes(4, "big"))
        self._forget(stream)

    def _forget(self, stream: HTTP2Stream) -> None:
        self._streams.pop(stream.id, None)
        self._unwritten.pop(stream.id, None)

    def _ping(self, payload: bytes) -> None:
        self._send(wire.PING, 0, 0, payload)

    def _pong_missed(self) -> None:
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        late = f"{self._link.address} did not answer a ping within {self._keepalive.timeout_s:g} s"
        self._end(ConnectionLostError(late))

    # Deadlines

    def _expire(self, now_s: float) -> float | None:
        overdue = [stream for stream in (*self._streams.values(), *self._queue) if stream.deadline_s <= now_s]
        self._queue = deque(stream for stream in self._queue if stream.deadline_s > now_s)
        address = self._link.address
        for stream in overdue:
            self._reset(stream, ErrorCode.CANCEL)
            timeout_s = stream.deadline_s - stream.began_s
            if stream.is_written:
                stream.end(AckTimeoutError(f"no answer from {address} within {timeout_s:.3g} s"))
            else:
                said = f"could not be sent to {address} within {timeout_s:.3g} s"
                stream.end(AckTimeoutError(said, outcome=Outcome.NOT_DELIVERED))
        # A request that only waited for its turn says nothing about requests under way.
        sent = overdue if not self._streams else [stream for stream in overdue if stream.id]
        if any(self._received_s <= stream.began_s for stream in sent):
            # No byte since then: the server is gone without a message.
            self._link.stats.count(TOTAL_CONN_ERR, 1)
            self._end(ConnectionLostError(f"connection to {address} given up: nothing came over it in time"))
            return None
        self._pump()
        return min((stream.deadline_s for stream in (*self._streams.values(), *self._queue)), default=None)


def _too_wide(window: int) -> wire.FrameError:
    """The server opens a window beyond its limit (RFC 9113, 6.9.1 and 6.9.2)."""
    return wire.FrameError(f"a window of {window}", ErrorCode.FLOW_CONTROL_ERROR)
