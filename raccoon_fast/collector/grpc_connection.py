"""An HTTP/2 connection with gRPC calls, answered as grpc-go 1.63.2 answers them with the server's settings.

The library h2 reads and writes the frames. grpcio's own server cannot be used here: it accepts compressed messages,
content types, timeouts and methods that grpc-go refuses, and refuses calls that grpc-go accepts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import urllib.parse
from collections.abc import Mapping
from typing import Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from raccoon_fast.collector.grpc_frames import DATA_WINDOW_BYTES, FrameSplitter, window_update
from raccoon_fast.collector.grpc_head import CallHead, ProtocolError, RefusedCall, parse_call
from raccoon_fast.collector.grpc_status import GrpcCode

__all__ = ["MAX_REQUEST_BYTES", "CallFailed", "GrpcConnection", "GrpcHandler"]

#: grpc-go's default, which the server keeps.
MAX_REQUEST_BYTES = 4 << 20

_MAX_HEADERS_BYTES = 16 << 20  # grpc-go's default
_SETTINGS = {
    h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADERS_BYTES,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20,
    h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1_000,  # h2 checks every open stream for each new one
}
_WINDOW_BYTES = 16 << 20
_PREFACE_S = 120.0  # grpc-go's connectionTimeout
# grpc-go waits for the rest of a message while the connection lives. This limits how long half a message uses memory.
_MESSAGE_S = 600.0
_MIN_TIMEOUT_S = 1e-6  # a shorter timeout has passed before grpc-go reads the message
# The defaults of grpc-go's keepalive enforcement.
_MIN_PING_INTERVAL_S, _IDLE_PING_INTERVAL_S, _MAX_PING_STRIKES = 300.0, 7200.0, 2
_PREFIX_BYTES = 5

_log = logging.getLogger("raccoon_fast.collector")


class CallFailed(Exception):
    """Ends a call with a status other than OK.

    Attributes:
        code: The gRPC status.
    """

    def __init__(self, code: GrpcCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class GrpcHandler:
    """The calls' handler. A connection calls its methods."""

    def begin(self, head: CallHead) -> None:
        """Handle the headers of a new call.

        Raises:
            CallFailed: The call is answered before its message arrives.
        """
        raise NotImplementedError

    def refused(self, head: CallHead | None, code: str, reason: str) -> None:
        """Note that a call was refused before its message was complete."""
        raise NotImplementedError

    def answer_at_once(self, head: CallHead, message: bytes) -> bytes | None:
        """Answer a message; None if that requires waiting. Then use `answer`.

        Raises:
            CallFailed: The call ends with a status other than OK.
        """
        raise NotImplementedError

    async def answer(self, head: CallHead, message: bytes) -> bytes:
        """Answer a message.

        Raises:
            CallFailed: The call ends with a status other than OK.
        """
        raise NotImplementedError


class _Call:
    __slots__ = ("data", "has_length", "head", "is_complete", "is_ended", "needed", "task", "timer", "unacknowledged")

    def __init__(self, head: CallHead, *, has_length: bool) -> None:
        self.head = head
        self.has_length = has_length  # a content-length, as sent by a proxy that has the complete request
        self.data = bytearray()
        self.needed = _PREFIX_BYTES  # bytes required before more of the message can be parsed
        self.unacknowledged = 0  # bytes that bypassed h2
        self.is_complete = False  # whether the message is
        self.is_ended = False  # whether the client has ended the stream
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class _PastH2:
    """The streams whose DATA frames may bypass h2: those without a content-length, which h2 compares with frames."""

    def __init__(self, calls: Mapping[int, _Call]) -> None:
        self._calls = calls

    def __contains__(self, stream_id: object) -> bool:
        call = self._calls.get(stream_id)  # type: ignore[call-overload]
        return call is not None and not call.has_length


class GrpcConnection(asyncio.Protocol):
    """A connection with its calls; used on the collector's event loop.

    Args:
        handler: Answers calls.
        connections: The open connections.
    """

    def __init__(self, handler: GrpcHandler, connections: set[GrpcConnection]) -> None:
        self.transport: asyncio.Transport | None = None
        self._handler = handler
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._h2.local_settings = h2.settings.Settings(client=False, initial_values=_SETTINGS)
        self._h2.decoder.max_header_list_size = _MAX_HEADERS_BYTES
        self._calls: dict[int, _Call] = {}
        self._splitter = FrameSplitter(_PastH2(self._calls))
        self._unacknowledged = 0
        self._unsent: dict[int, tuple[bytes, list[tuple[str, str]]]] = {}
        self._preface_timer: asyncio.TimerHandle | None = None
        self._last_ping_s = 0.0
        self._ping_strikes = 0
        self._has_answered = False  # since the last ping

    @property
    def busy_calls(self) -> list[asyncio.Task[None]]:
        """The tasks of calls that are being answered."""
        return [call.task for call in self._calls.values() if call.task is not None]

    # Methods of asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the server's preface."""
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._preface_timer = self._loop.call_later(_PREFACE_S, self.transport.abort)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW_BYTES)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection's calls."""
        self._connections.discard(self)
        if self._preface_timer is not None:
            self._preface_timer.cancel()
        for call in self._calls.values():
            _drop(call)
        self._calls.clear()

    def data_received(self, data: bytes) -> None:
        """Handle the complete frames."""
        assert self.transport is not None
        try:
            for stream_id, part, is_last in self._splitter.split(data):
                if stream_id:
                    self._take_past_h2(stream_id, part, is_ended=is_last)
                else:
                    for event in self._h2.receive_data(bytes(part)):
                        self._handle(event)
        except h2.exceptions.ProtocolError as error:
            _log.debug("a gRPC connection broke HTTP/2: %s", error)
            self._flush()
            self.transport.close()
            return
        for stream_id, call in self._calls.items():
            if not call.is_complete and call.timer is None:
                timeout_s = _MESSAGE_S if call.head.timeout_s is None else min(call.head.timeout_s, _MESSAGE_S)
                call.timer = self._loop.call_later(timeout_s, self._expire, stream_id)
        self._flush()

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read its answers."""
        assert self.transport is not None
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume reading."""
        assert self.transport is not None
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # Frames.

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event.stream_id, event.headers, is_ended=event.stream_ended is not None)
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._take(event.stream_id, event.data, is_ended=event.stream_ended is not None)
        elif isinstance(event, h2.events.StreamReset):
            call = self._calls.pop(event.stream_id, None)
            self._unsent.pop(event.stream_id, None)
            if call is not None:
                _drop(call)
        elif isinstance(event, h2.events.WindowUpdated):
            for stream_id in list(self._unsent) if not event.stream_id else [event.stream_id]:
                self._send_rest(stream_id)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            if self._preface_timer is not None:
                self._preface_timer.cancel()
                self._preface_timer = None
            for stream_id in list(self._unsent):
                self._send_rest(stream_id)
        elif isinstance(event, h2.events.PingReceived):
            self._judge_ping()
        elif isinstance(event, h2.events.ConnectionTerminated):
            assert self.transport is not None
            self._flush()
            self.transport.close()  # h2 sends nothing after the client's GOAWAY

    def _take_past_h2(self, stream_id: int, data: bytes | memoryview, *, is_ended: bool) -> None:
        """Handle the payload of a DATA frame that bypassed h2, and reopen its flow-control windows."""
        assert self.transport is not None
        call = self._calls[stream_id]
        call.unacknowledged += len(data)
        self._unacknowledged += len(data)
        if call.unacknowledged > DATA_WINDOW_BYTES and not is_ended:
            self.transport.write(window_update(stream_id, call.unacknowledged))
            call.unacknowledged = 0
        if self._unacknowledged > DATA_WINDOW_BYTES:
            self.transport.write(window_update(0, self._unacknowledged))
            self._unacknowledged = 0
        self._take(stream_id, data, is_ended=is_ended)

    def _begin(self, stream_id: int, headers: Any, *, is_ended: bool) -> None:
        try:
            head = parse_call(headers)
        except ProtocolError as error:
            self._handler.refused(None, "PROTOCOL_ERROR", str(error))
            self._reset(stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return
        except RefusedCall as refused:
            self._handler.refused(None, refused.code.name, str(refused))
            self._end(stream_id, refused.content_type, refused.code, str(refused), refused.http_status)
            if not is_ended:
                self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)
            return
        has_length = any(name == b"content-length" for name, _ in headers)
        call = self._calls[stream_id] = _Call(head, has_length=has_length)
        call.is_ended = is_ended
        try:
            if head.timeout_s is not None and head.timeout_s < _MIN_TIMEOUT_S:
                raise CallFailed(GrpcCode.DEADLINE_EXCEEDED, "context deadline exceeded")
            self._handler.begin(head)
        except CallFailed as failed:
            self._fail(stream_id, failed)

    def _take(self, stream_id: int, data: bytes | memoryview, *, is_ended: bool) -> None:
        call = self._calls.get(stream_id)
        if call is None:
            return
        call.is_ended = call.is_ended or is_ended
        if call.is_complete:
            return  # only the first message is read
        call.data += data
        if len(call.data) < call.needed and not call.is_ended:
            return
        try:
            message = self._message(call)
            if message is None:
                return
            call.is_complete = True
            if call.timer is not None:
                call.timer.cancel()
            answer = self._handler.answer_at_once(call.head, message)
        except CallFailed as failed:
            self._fail(stream_id, failed)
            return
        if answer is None:
            call.task = self._loop.create_task(self._answer(stream_id, call.head, message))
        else:
            self._succeed(stream_id, answer)

    def _message(self, call: _Call) -> bytes | None:
        """The call's message; None while it is incomplete (grpc-go, `recvAndDecompress`)."""
        data = call.data
        size = int.from_bytes(data[1:_PREFIX_BYTES], "big")
        if len(data) >= _PREFIX_BYTES and size > MAX_REQUEST_BYTES:
            words = f"grpc: received message larger than max ({size} vs. {MAX_REQUEST_BYTES})"
            raise self._refuse(call, GrpcCode.RESOURCE_EXHAUSTED, words)
        if len(data) < _PREFIX_BYTES or len(data) < _PREFIX_BYTES + size:
            if call.is_ended:
                words = "unexpected EOF" if data else "EOF"
                raise self._refuse(call, GrpcCode.UNKNOWN, words)
            call.needed = _PREFIX_BYTES + size if len(data) >= _PREFIX_BYTES else _PREFIX_BYTES
            return None
        if data[0] == 1:  # without a decompressor the encoding is none or identity
            raise self._refuse(call, GrpcCode.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        if data[0]:
            raise self._refuse(call, GrpcCode.INTERNAL, f"grpc: received unexpected payload format {data[0]}")
        with memoryview(data) as view:
            return bytes(view[_PREFIX_BYTES : _PREFIX_BYTES + size])

    def _refuse(self, call: _Call, code: GrpcCode, reason: str) -> CallFailed:
        self._handler.refused(call.head, code.name, reason)
        return CallFailed(code, reason)

    def _expire(self, stream_id: int) -> None:
        call = self._calls.get(stream_id)
        if call is None or call.is_complete:
            return
        self._fail(stream_id, self._refuse(call, GrpcCode.DEADLINE_EXCEEDED, "context deadline exceeded"))
        self._flush()

    def _judge_ping(self) -> None:
        now_s = self._loop.time()
        if self._has_answered:
            self._has_answered = False
            self._ping_strikes = 0
        elif self._last_ping_s:
            interval_s = _MIN_PING_INTERVAL_S if self._calls else _IDLE_PING_INTERVAL_S
            self._ping_strikes += now_s - self._last_ping_s < interval_s
        self._last_ping_s = now_s
        if self._ping_strikes > _MAX_PING_STRIKES:
            assert self.transport is not None
            self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings")
            self._flush()
            self.transport.close()

    # Answers.

    async def _answer(self, stream_id: int, head: CallHead, message: bytes) -> None:
        try:
            answer = await self._handler.answer(head, message)
        except CallFailed as failed:
            self._fail(stream_id, failed)
        else:
            self._succeed(stream_id, answer)
        self._flush()

    def _succeed(self, stream_id: int, answer: bytes) -> None:
        call = self._calls.get(stream_id)
        if call is None:
            return  # the client has cancelled the call
        self._h2.send_headers(stream_id, [(":status", "200"), ("content-type", call.head.content_type)])
        trailers = [("grpc-status", "0"), ("grpc-message", "")]
        self._unsent[stream_id] = (b"\0" + len(answer).to_bytes(4, "big") + answer, trailers)
        self._send_rest(stream_id)

    def _send_rest(self, stream_id: int) -> None:
        """Send as much of an answer as the client's windows allow, and the trailers after its end."""
        unsent = self._unsent.pop(stream_id, None)
        if unsent is None:
            return
        data, trailers = unsent
        while data:
            size = min(len(data), self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if size <= 0:
                self._unsent[stream_id] = data, trailers
                return
            self._h2.send_data(stream_id, data[:size])
            data = data[size:]
        self._h2.send_headers(stream_id, trailers, end_stream=True)
        self._leave(stream_id)

    def _fail(self, stream_id: int, failed: CallFailed) -> None:
        call = self._calls.get(stream_id)
        if call is not None:
            self._end(stream_id, call.head.content_type, failed.code, str(failed), 200)
            self._leave(stream_id)

    def _end(self, stream_id: int, content_type: str, code: GrpcCode, reason: str, http_status: int) -> None:
        # Percent-Encoded, as defined by gRPC over HTTP/2.
        words = urllib.parse.quote(reason.encode("utf-8", "surrogateescape"), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")
        headers = [
            (":status", str(http_status)),
            ("content-type", content_type),
            ("grpc-status", str(int(code))),
            ("grpc-message", words),
        ]
        self._h2.send_headers(stream_id, headers, end_stream=True)

    def _leave(self, stream_id: int) -> None:
        """End an answered call; the rest of the client's data is not wanted."""
        call = self._calls.pop(stream_id)
        self._has_answered = True
        if call.timer is not None:
            call.timer.cancel()
        if not call.is_ended:
            self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        # The stream is already closed if the client's end arrived together with the rest.
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            self._h2.reset_stream(stream_id, code)

    def _flush(self) -> None:
        assert self.transport is not None
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)


def _drop(call: _Call) -> None:
    if call.timer is not None:
        call.timer.cancel()
    if call.task is not None:
        call.task.cancel()
