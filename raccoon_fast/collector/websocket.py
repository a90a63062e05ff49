"""A WebSocket connection: it carries many requests, and each answer has the same frame type as its request.

The handshake is checked as gorilla/websocket 1.5.0 checks it (`Upgrader.Upgrade`) with the server's settings.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from raccoon_fast.collector import answers
from raccoon_fast.collector.decode_errors import HandlerPanic, MalformedRequest
from raccoon_fast.collector.fault_hits import Target
from raccoon_fast.collector.fault_table import AnswerFaults
from raccoon_fast.collector.go_http import Head
from raccoon_fast.collector.go_url import origin_host
from raccoon_fast.collector.http_answer import Answer, text_answer
from raccoon_fast.collector.intake import Intake, first_values, with_wrong_guid
from raccoon_fast.collector.records import WEBSOCKET, Source
from raccoon_fast.collector.sockets import reset
from raccoon_fast.collector.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    BrokenFrame,
    FrameReader,
    Message,
    close_payload,
    frame,
)
from raccoon_fast.events import Code

if TYPE_CHECKING:
    from raccoon_fast.collector.http_connection import Connections

__all__ = ["EVENTS_PATH", "MAX_REQUEST_BYTES", "Registry", "WebSocketConnection", "refusal_of_handshake"]

EVENTS_PATH = "/api/v1/events"

# The server has no limit. This one protects the memory of the program that embeds the collector.
MAX_REQUEST_BYTES = 64 << 20

_PING = b"--ping--"
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_POLICY_VIOLATION = 1008
_TOO_LARGE = 1009
_REORDER_S = 0.05
_NO_FAULTS = AnswerFaults()

_log = logging.getLogger("raccoon_fast.collector")


def refusal_of_handshake(head: Head) -> Answer | None:
    """The answer that refuses a GET of the events' path; None if the handshake is accepted."""
    is_upgrade = (
        head.has_token("connection", "upgrade")
        and head.has_token("upgrade", "websocket")
        and head.has_token("sec-websocket-version", "13")
    )
    if not is_upgrade:
        return _refusal(400, "Bad Request")
    origin = head.first("origin")
    if origin is not None:
        named = origin_host(origin.encode("latin-1"))
        host = head.target.host or (head.first("host") or "").encode("latin-1")
        if named is None or named.lower() != host.lower():
            return _refusal(403, "Forbidden")
    return None if head.first("sec-websocket-key") else _refusal(400, "Bad Request")


def _refusal(status: int, words: str) -> Answer:
    return text_answer(status, words, ("sec-websocket-version", "13"))


class _Live(NamedTuple):
    connection: WebSocketConnection
    source: Source
    since: float


class Registry:
    """The live connections by group and id. Pings all of them at the same time, as the server does."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._live: dict[tuple[str, str], _Live] = {}
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.call_later(intake.options.ping_interval, self._ping)

    def close(self) -> None:
        """Stop pinging."""
        self._ticker.cancel()

    def _ping(self) -> None:
        self._ticker = self._loop.call_later(self._intake.options.ping_interval, self._ping)
        for live in list(self._live.values()):
            live.connection.ping()

    def newest(self, limit: int) -> list[tuple[Source, float]]:
        """The latest senders, newest first, up to `limit`; each with its connection time in UNIX seconds."""
        return [(live.source, live.since) for live in itertools.islice(reversed(self._live.values()), limit)]

    def add(self, connection: WebSocketConnection, source: Source) -> tuple[Any, str] | None:
        """Register a connection, or return the answer and the close reason that refuse it.

        Its group and id stay taken until `discard`. If a client vanishes without closing, that is its read deadline.
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
        """Remove a connection; does nothing for a refused one."""
        key = (source.group, source.connection_id)
        live = self._live.get(key)
        if live is not None and live.connection is connection:
            del self._live[key]
            self._intake.ledger.connected(len(self._live))


class WebSocketConnection(asyncio.Protocol):
    """A connection from its handshake to its end. An HTTP connection creates it on the collector's event loop.

    Args:
        intake: Accepts requests.
        registry: The live connections.
        connections: The live connections on the port.
        transport: The HTTP connection's transport; the answer to the handshake is written to it.
        head: The handshake, already accepted by `refusal_of_handshake`.
    """

    def __init__(
        self, intake: Intake, registry: Registry, connections: Connections, transport: asyncio.Transport, head: Head
    ) -> None:
        self._intake = intake
        self._registry = registry
        self._open_connections = connections.open
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(MAX_REQUEST_BYTES)
        self.transport = transport
        self.source = intake.source(WEBSOCKET, first_values(head.headers))
        self._seen: set[str] = set()
        self._held: list[bytes] = []
        self._is_queue_full = False
        self._is_peer_slow = False
        self._is_reading = True
        self._deadline_s = self._loop.time() + intake.options.pong_wait
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._open_connections.add(self)
        self._shake_hands(head)

    # Methods of asyncio.Protocol.

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection's group and id."""
        self._open_connections.discard(self)
        for timer in self._timers.values():
            timer.cancel()
        self._registry.discard(self, self.source)
        _log.debug("websocket %r disconnected: %s", self.source.connection_id, exc)

    def data_received(self, data: bytes) -> None:
        """Handle the complete messages while the queue has room."""
        self._reader.feed(data)
        self._work()

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read its answers."""
        self._is_peer_slow = True
        self._set_reading()

    def resume_writing(self) -> None:
        """Resume reading."""
        self._is_peer_slow = False
        self._work()

    # Handshake.

    def _shake_hands(self, head: Head) -> None:
        key = (head.first("sec-websocket-key") or "").encode("latin-1")
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID).digest())  # noqa: S324 - RFC 6455, section 4.2.2
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
        )
        refused = self._registry.add(self, self.source)
        if refused is not None:
            answer, reason = refused
            self._intake.ledger.rejected(self.source, Code(answer.code).name, reason)
            self.transport.write(frame(BINARY, answers.encode_answer(answer, answers.PROTO)))
            self._close(close_payload(_POLICY_VIOLATION, reason))
            return
        _log.debug("websocket %r connected", self.source.connection_id)
        self._check_deadline()

    def ping(self) -> None:
        """Send the server's ping."""
        self._write(frame(PING, _PING))

    def _check_deadline(self) -> None:
        """Close the connection at its read deadline, or at the next read after it, as a blocked reader would."""
        left_s = self._deadline_s - self._loop.time()
        if left_s > 0:
            self._call_later("deadline", left_s, self._check_deadline)
        elif self._is_reading:
            self.transport.abort()

    # Requests.

    def _work(self) -> None:
        """Handle the messages that were read, then resume reading; pause reading while they cannot be handled."""
        try:
            while not (self._is_queue_full or self._is_peer_slow or self.transport.is_closing()):
                message = self._reader.take()
                if message is None:
                    if self._reader.is_too_large:
                        self._refuse_size(MAX_REQUEST_BYTES, b"")
                    break
                self._handle(message)
        except BrokenFrame as broken:
            self._intake.ledger.rejected(self.source, "1002", f"broken frame: {broken}")
            self._close(broken.close)
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
        self._check_deadline()

    def _handle(self, message: Message) -> None:
        opcode, data = message
        if opcode in (BINARY, TEXT):
            self._handle_request(opcode, data)
        elif opcode == PONG:
            self._deadline_s = self._loop.time() + self._intake.options.pong_wait
        elif opcode == PING:
            if not self._intake.faults.take("stop_ponging", lambda: Target(self.source, requests=0)):
                self._write(frame(PONG, data))
        else:
            self._close(data)

    def _handle_request(self, opcode: int, data: bytes) -> None:
        encoding = answers.JSON if opcode == TEXT else answers.PROTO
        limit = self._intake.faults.limits(len(data), lambda: self._intake.target(data, encoding, self.source))
        if limit is not None:
            self._refuse_size(limit, data)
            return
        try:
            request = self._intake.decode(data, encoding, self.source)
        except MalformedRequest as error:
            answer = answers.unreadable(f"cannot deserialize request: {error}", error.req_guid)
            self._intake.ledger.rejected(
                self.source, Code(answer.code).name, answer.reason, req_guid=error.req_guid, data=data
            )
            self._answer(opcode, answer, 0)
            return
        except HandlerPanic as panic:
            self._intake.ledger.rejected(self.source, "", f"{panic}: the connection is closed", data=data)
            _log.error("%s; the connection is closed without an answer, as a Raccoon server does", panic)
            self.transport.abort()
            return
        req_guid, events = request.req_guid, len(request.message.events)
        if self._intake.options.dedup:
            if req_guid in self._seen:
                self._answer(opcode, answers.success(req_guid), events)
                return
            self._seen.add(req_guid)

        def done(reason: str) -> None:
            if not reason:
                self._answer(opcode, answers.success(req_guid), events)
                return
            self._seen.discard(req_guid)
            self._answer(opcode, answers.failure(req_guid, f"cannot publish events: {reason}"), events)

        self._intake.take(request, self.source, done)
        if self._intake.publisher.is_full:
            self._is_queue_full = True
            self._intake.publisher.when_room(self._queue_has_room)

    def _queue_has_room(self) -> None:
        self._is_queue_full = False
        self._work()

    def _refuse_size(self, limit: int, data: bytes) -> None:
        self._intake.ledger.rejected(self.source, "1009", f"over the limit of {limit} bytes", data=data)
        self._close(close_payload(_TOO_LARGE, "read limit exceeded"))

    # Answers.

    def _answer(self, opcode: int, answer: Any, events: int) -> None:
        faults = (
            self._intake.faults.for_answer(
                lambda: Target(self.source, answer.data.get("req_guid", ""), events), owns_bytes=True, is_stream=True
            )
            or _NO_FAULTS
        )
        if faults.hang_up:
            reset(self.transport)
        if faults.hang_up or faults.drop:
            return
        encoding = answers.JSON if opcode == TEXT else answers.PROTO
        if faults.wrong_guid:
            answer = with_wrong_guid(answer)
        elif answer.code == Code.OK and faults.body is None and faults.cut_bytes is None:
            self._intake.ledger.acknowledged()
        payload = answers.encode_answer(answer, encoding) if faults.body is None else faults.body
        frames = frame(opcode, payload) * (2 if faults.duplicate else 1)
        if faults.unknown:
            frames = frame(opcode, answers.encode_answer(with_wrong_guid(answers.success("")), encoding)) + frames
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
        if not self.transport.is_closing():
            self.transport.write(frames)

    def _close(self, payload: bytes | None) -> None:
        """Send a close frame, unless `payload` is None, and close the connection at once, as the server does."""
        if payload is not None:
            self._write(frame(CLOSE, payload))
        self.transport.close()

    def _call_later(self, name: str, delay_s: float, callback: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay_s, callback)
