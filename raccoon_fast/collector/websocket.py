"""One WebSocket connection: many requests, each answered in the kind of its frame.

`websockets`' sans-I/O protocol does the handshake and the framing (RFC 6455); uvicorn hands the connection over when a
client asks for the upgrade. Not an ASGI application, since that could neither choose the pings' payload, nor end a
connection without a close frame, nor leave a client's ping unanswered.
"""

from __future__ import annotations

import asyncio
import http
import itertools
import logging
import time
from collections import deque
from typing import Any, NamedTuple, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from raccoon_fast.collector import answers
from raccoon_fast.collector.fault_table import AnswerFaults
from raccoon_fast.collector.intake import Intake, first_values, with_wrong_guid
from raccoon_fast.collector.records import WEBSOCKET, Source
from raccoon_fast.collector.sockets import reset
from raccoon_fast.events import Code

__all__ = ["EVENTS_PATH", "MAX_REQUEST_BYTES", "Registry", "WebSocketConnection"]

EVENTS_PATH = "/api/v1/events"

# The server has no limit of its own; this one protects the memory of the program the collector is embedded in.
MAX_REQUEST_BYTES = 64 << 20

_PING = b"--ping--"
_POLICY_VIOLATION = 1008
_TOO_LARGE = 1009
_REORDER_S = 0.05
_NO_FAULTS = AnswerFaults()

_log = logging.getLogger("raccoon_fast.collector")
# `websockets` tells of each connection at info level, and of each frame, headers included, at debug level.
_quiet = logging.getLogger("raccoon_fast.collector.websocket")
_quiet.setLevel(logging.WARNING)


class _Live(NamedTuple):
    connection: WebSocketConnection
    source: Source
    since: float


class Registry:
    """The live connections, by group and id."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._live: dict[tuple[str, str], _Live] = {}

    def newest(self, limit: int) -> list[tuple[Source, float]]:
        """Who connected last, the newest first, and since when they are, UNIX seconds; up to `limit`."""
        return [(live.source, live.since) for live in itertools.islice(reversed(self._live.values()), limit)]

    def add(self, connection: WebSocketConnection, source: Source) -> tuple[Any, str] | None:
        """Let a connection in, or return the answer and the close reason that refuse it.

        Its group and id stay taken until `discard`: for a client that vanished without closing, until its read
        deadline.
        """
        key = (source.group, source.connection_id)
        if len(self._live) >= self._intake.options.max_connections:
            return answers.max_connections(), "Max connection reached"
        if key in self._live:
            return answers.duplicate_connection(*key), f"duplicate connection: {source.connection_id}"
        self._live[key] = _Live(connection, source, time.time())
        self._intake.ledger.connected(len(self._live))
        return None

    def discard(self, connection: WebSocketConnection, source: Source) -> None:
        """Forget a connection; one that was refused holds nothing."""
        key = (source.group, source.connection_id)
        live = self._live.get(key)
        if live is not None and live.connection is connection:
            del self._live[key]
            self._intake.ledger.connected(len(self._live))


class WebSocketConnection(asyncio.Protocol):
    """A connection from its handshake to its end; the keyword arguments are those uvicorn gives."""

    def __init__(self, intake: Intake, registry: Registry, *, server_state: Any, **_: Any) -> None:
        self._intake = intake
        self._registry = registry
        self._open_connections: set[Any] = server_state.connections
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=MAX_REQUEST_BYTES, logger=_quiet)
        self.transport: asyncio.Transport
        self._source: Source | None = None
        self._fragments: list[bytes] = []
        self._fragments_opcode = Opcode.BINARY
        self._seen: set[str] = set()
        self._held: list[bytes] = []
        self._frames: deque[Frame] = deque()
        self._is_queue_full = False
        self._is_peer_slow = False
        self._is_reading = True
        self._deadline_s = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake's request is about to come."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not derive from asyncio's
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Its group and id are free again."""
        self._open_connections.discard(self)
        for timer in self._timers.values():
            timer.cancel()
        self._frames.clear()
        if self._source is not None:
            self._registry.discard(self, self._source)
            _log.debug("websocket %r disconnected: %s", self._source.connection_id, exc or self._protocol.close_rcvd)

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are complete, as far as the queue has room."""
        self._protocol.receive_data(data)
        self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frames.append(event)
            elif isinstance(event, Request):
                self._handshake(event)
        self._work()

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read its answers."""
        self._is_peer_slow = True
        self._set_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self._is_peer_slow = False
        self._work()

    # Handshake

    def _handshake(self, request: Request) -> None:
        if request.path.partition("?")[0] != EVENTS_PATH:
            response = _http_response(404, {"content-type": "text/plain; charset=utf-8"}, b"404 page not found\n")
        elif (refusal := self._intake.faults.take("status")) is not None:
            response = _http_response(refusal.status, dict(refusal.headers), refusal.body)
        else:
            response = self._protocol.accept(request)
            del response.headers["Date"]  # the server's upgrade has none
        self._protocol.send_response(response)
        self._flush()
        source = self._intake.source(WEBSOCKET, first_values(request.headers.raw_items()))
        if self._protocol.state is not OPEN:
            words = (response.body or b"").decode("utf-8", "replace").strip()
            self._intake.ledger.rejected(source, str(response.status_code), f"handshake of {request.path}: {words}")
            return
        self._source = source
        refused = self._registry.add(self, source)
        if refused is not None:
            answer, reason = refused
            self._intake.ledger.rejected(source, Code(answer.code).name, reason)
            self._protocol.send_binary(answers.encode_answer(answer, answers.PROTO))
            self._protocol.send_close(_POLICY_VIOLATION, reason)
            self._flush()
            self.transport.close()
            return
        _log.debug("websocket %r connected", self._source.connection_id)
        self._deadline_s = self._loop.time() + self._intake.options.pong_wait
        self._check_deadline()
        self._call_later("ping", self._intake.options.ping_interval, self._ping)

    def _ping(self) -> None:
        if self._protocol.state is OPEN:
            self._protocol.send_ping(_PING)
            self._flush()
            self._call_later("ping", self._intake.options.ping_interval, self._ping)

    def _check_deadline(self) -> None:
        """Cut the connection at its read deadline, or at the first reading after it, as a blocked reader would."""
        left_s = self._deadline_s - self._loop.time()
        if left_s > 0:
            self._call_later("deadline", left_s, self._check_deadline)
        elif self._is_reading:
            self.transport.abort()

    # Requests

    def _work(self) -> None:
        """Handle the frames that were read, then read on; or stop reading while they cannot be handled."""
        while self._frames and not self._is_queue_full and not self._is_peer_slow and not self.transport.is_closing():
            self._handle_frame(self._frames.popleft())
        self._set_reading()

    def _set_reading(self) -> None:
        is_reading = not self._is_queue_full and not self._is_peer_slow
        if is_reading == self._is_reading or self.transport.is_closing():
            return
        self._is_reading = is_reading
        if not is_reading:
            self.transport.pause_reading()
            return
        self.transport.resume_reading()
        if self._source is not None:
            self._check_deadline()

    def _handle_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self._deadline_s = self._loop.time() + self._intake.options.pong_wait
        elif frame.opcode is Opcode.CONT:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                data, self._fragments = b"".join(self._fragments), []
                self._handle_message(self._fragments_opcode, data)
        elif frame.opcode in (Opcode.BINARY, Opcode.TEXT):
            if frame.fin:
                self._handle_message(frame.opcode, bytes(frame.data))
            else:
                self._fragments, self._fragments_opcode = [bytes(frame.data)], frame.opcode

    def _handle_message(self, opcode: Opcode, data: bytes) -> None:
        assert self._source is not None
        if (limit := self._intake.faults.limits(len(data))) is not None:
            self._intake.ledger.rejected(self._source, "1009", f"over the limit of {limit} bytes", data=data)
            self._protocol.send_close(_TOO_LARGE, "read limit exceeded")
            self._flush()
            self.transport.close()
            return
        encoding = answers.JSON if opcode is Opcode.TEXT else answers.PROTO
        try:
            request = self._intake.decode(data, encoding)
        except ValueError as error:
            answer = answers.unreadable(f"cannot deserialize request: {error}", "")
            self._intake.ledger.rejected(self._source, Code(answer.code).name, answer.reason, data=data)
            self._answer(opcode, answer)
            return
        req_guid = request.req_guid
        if self._intake.options.dedup:
            if req_guid in self._seen:
                self._answer(opcode, answers.success(req_guid))
                return
            self._seen.add(req_guid)

        def done(reason: str) -> None:
            if not reason:
                self._answer(opcode, answers.success(req_guid))
                return
            self._seen.discard(req_guid)
            self._answer(opcode, answers.failure(req_guid, f"cannot publish events: {reason}"))

        self._intake.take(request, self._source, done)
        if self._intake.publisher.is_full:
            self._is_queue_full = True
            self._intake.publisher.when_room(self._queue_has_room)

    def _queue_has_room(self) -> None:
        self._is_queue_full = False
        self._work()

    # Answers

    def _answer(self, opcode: Opcode, answer: Any) -> None:
        faults = self._intake.faults.for_answer(owns_bytes=True, is_stream=True) or _NO_FAULTS
        if faults.hang_up:
            reset(self.transport)
        if faults.hang_up or faults.drop:
            return
        encoding = answers.JSON if opcode is Opcode.TEXT else answers.PROTO
        if faults.wrong_guid:
            answer = with_wrong_guid(answer)
        payload = answers.encode_answer(answer, encoding) if faults.body is None else faults.body
        frames = _frame(opcode, payload) * (2 if faults.duplicate else 1)
        if faults.unknown:
            frames = _frame(opcode, answers.encode_answer(with_wrong_guid(answers.success("")), encoding)) + frames
        if faults.cut_bytes is not None:
            self._write(frames[: faults.cut_bytes])
            self.transport.close()
        elif faults.delay_s:
            self._loop.call_later(faults.delay_s, self._write, frames)
        elif faults.reorder:
            self._held.append(frames)
            if len(self._held) == 1:
                self._call_later("reorder", _REORDER_S, self._release)
        else:
            self._write(frames)

    def _release(self) -> None:
        held, self._held = self._held, []
        self._write(b"".join(reversed(held)))

    def _write(self, frames: bytes) -> None:
        if self._protocol.state is OPEN and not self.transport.is_closing():
            self.transport.write(frames)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if not data:
                self.transport.close()
            elif data[0] & 0x0F != Opcode.PONG or not self._intake.faults.take("stop_ponging"):
                self.transport.write(data)

    def _call_later(self, name: str, delay_s: float, callback: Any) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay_s, callback)


def _frame(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(opcode, payload).serialize(mask=False)


def _http_response(status: int, headers: dict[str, str], body: bytes) -> Response:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    fields = {**headers, "content-length": str(len(body)), "connection": "close"}
    return Response(status, phrase, Headers(fields), body)
