"""One WebSocket connection (RFC 6455): many requests in flight, answers matched by guid.

The sans-I/O protocol of `websockets` does the handshake, parses incoming frames, and answers pings and Close frames.
Event frames bypass it: they are framed and masked in the buffer in which they were encoded
(`Envelope.websocket_frame`).

Everything here runs on the event loop on which the connection was opened. Answers are settled in the protocol callback
itself, which never waits: a client that stops reading acknowledgements stalls every client of the server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from raccoon_fast.core.acks import AckTable, Verdict
from raccoon_fast.core.answers import decode_json_answer, decode_proto_answer
from raccoon_fast.core.frames import AnswerReader
from raccoon_fast.errors import (
    AckTimeoutError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    DeliveryError,
    Outcome,
    ProtocolError,
    RaccoonError,
    ServerError,
    TLSError,
)
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_CONN_ERR
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import MAX_ANSWER_BYTES, lost_error
from raccoon_fast.transports.http_answers import status_error, too_large
from raccoon_fast.transports.pinger import Keepalive, Pinger
from raccoon_fast.transports.shared_connection import SharedConnection
from raccoon_fast.transports.websocket.handshake import HandshakeReader
from raccoon_fast.transports.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from websockets.frames import Close

    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Link, Request

__all__ = ["WebSocketConnection"]

# The protocol's debug log shows the handshake's headers, including Authorization, so it is discarded.
_SILENT = logging.getLogger("raccoon_fast.transports.websocket.transport")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_SILENT.setLevel(logging.CRITICAL)

_OPCODES = {"proto": 2, "json": 1}
# RFC 6455 5.3: the masking keys of frames must be unpredictable. One system call serves 256 frames.
_KEYS = struct.Struct("4s" * 256)
# Looked up once: attribute access on an enum class is slow.
_BINARY, _SUCCESS, _MATCHED = Opcode.BINARY, Status.SUCCESS, Verdict.MATCHED
_REFUSALS = (Code.MAX_CONNECTION_LIMIT_REACHED, Code.MAX_USER_LIMIT_REACHED)
# How long the server may take to close the connection after its Close frame.
_CLOSE_TIMEOUT_S = 0.8
# How long to wait for the rest of a refusal's body, which may give the reason.
_REFUSAL_TIMEOUT_S = 0.25
_UNKNOWN_LOG_INTERVAL_S = 60.0
# The most fragments of one answer; protects from a peer that sends empty fragments without end.
_MOST_FRAGMENTS = 10_000


class _Queued(NamedTuple):
    request: Request
    waiter: AnyAttempt
    deadline_s: float


class WebSocketConnection(SharedConnection):
    """A connection from its handshake to its end; it is never reopened.

    Args:
        link: The server; ws or wss.
        keepalive: Our pings.
        max_in_flight: The most unanswered requests; further ones wait.
        headers: The headers of the handshake.
    """

    def __init__(self, link: Link, keepalive: Keepalive, max_in_flight: int, headers: Mapping[str, str]) -> None:
        super().__init__(link)
        self._keepalive = keepalive
        self._protocol = ClientProtocol(parse_uri(link.address.uri), max_size=MAX_ANSWER_BYTES, logger=_SILENT)
        handshake = self._protocol.connect()
        for name, value in headers.items():
            handshake.headers[name] = value
        self._protocol.send_request(handshake)
        self.acks = AckTable()
        self.window = Window(max_in_flight)
        self.error: RaccoonError | None = None
        #: Guids of requests one of which the server could not read, or considered too large. Only an answer to a single
        #: request shows which one, so each is sent alone. Passed on from connection to connection.
        self.suspects: set[str] = set()
        #: Whether this connection ended before the request at fault was known. The next one begins with one request at
        #: a time, because the halves of a faulty batch have new guids and may be faulty too.
        self.has_culprit = False
        # Whether an abandoned request may still be answered here.
        self._has_abandoned = False
        self._has_answered = False
        self._settled: asyncio.Future[None] | None = None
        self._leaving = False
        self._queue: deque[_Queued] = deque()
        # False until a large write has reached the socket.
        self._flushed = True
        self._high_water_bytes = 0
        self._handshake = HandshakeReader()
        self._reader = AnswerReader()
        self._fragments: list[bytes] = []
        self._fragments_opcode = Opcode.BINARY
        self._keys: list[bytes] = []
        self._pinger = Pinger(keepalive, self._ping, self._pong_missed, link.logger)
        self._unknown_logged_s = float("-inf")
        #: Called by `move_on`; set by the transport, which replaces the connection.
        self.on_move: Callable[[], None] | None = None

    @property
    def usable(self) -> bool:
        """Whether it accepts further requests."""
        return self.error is None

    async def open(self, timeout_s: float) -> None:
        """Wait for the end of the handshake.

        Raises:
            ConnectError, ServerError, ProtocolError: It failed; the connection is closed.
        """
        late = f"{self._link.address} did not answer the WebSocket handshake within {timeout_s:.3g} s"
        await self._wait_opened(timeout_s, late)
        self._pinger.start()

    def begin(self, request: Request, waiter: AnyAttempt, deadline_s: float) -> None:
        """Send one request, now or when its turn comes.

        Args:
            request: Its guid must not have been on this connection before (`acks.seen`).
            waiter: Gets its acknowledgement, or an error of Transport.send. A caller that cancels it must call
                `abandon` or close the connection.
            deadline_s: Loop time of the acknowledgement's deadline. When it passes, the connection is closed: a request
                may be sent only once per connection, so the resend needs a new one.
        """
        is_first = self._writable and self._flushed and not (self._queue or self.suspects)
        if is_first and self.error is None and len(self.acks) < self.window.limit:
            self._write(request, waiter, deadline_s)
        else:
            self._queue.append(_Queued(request, waiter, deadline_s))
            self._pump()
        if self.error is None and deadline_s < self._timer.due_s:
            self._timer.watch(deadline_s)

    def abandon(self, request: Request) -> None:
        """Abandon a request: a late answer is only counted."""
        if self.acks.discard(request.req_guid) is not None:
            self._has_abandoned = True
        self._pump()

    def move_on(self) -> None:
        """See SharedConnection.move_on."""
        if self.on_move is not None:
            self.on_move()

    async def retire(self) -> None:
        """Close once nothing is in flight. This takes limited time, because every request has a deadline."""
        try:
            while self.error is None and (self._queue or self.acks):
                self._settled = self._loop.create_future()
                await asyncio.wait([self._settled, self._lost], return_when=asyncio.FIRST_COMPLETED)
            await self.close()
        finally:
            self.abort()

    async def close(self) -> None:
        """Send a Close frame (code 1000), and wait at most a second for the connection to end. Idempotent.

        Requests in flight fail with ConnectionLostError at once, however long the server takes to answer the Close.
        """
        if self.transport is not None and self._protocol.state is OPEN:
            self._leaving = True
            self._protocol.send_close(1000)
            self._flush()
            self._fail(lost_error(None, self._link.address))
            await self._wait_lost()
        self.abort()

    def _end(self, error: RaccoonError) -> None:
        """Close at once; requests in flight fail with `error`, each with its own copy."""
        self._fail(error)
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, error: RaccoonError) -> None:
        """The part of `_end` that leaves the socket open."""
        if self.error is None:
            self.error = error
        self._pinger.stop()
        self._stop(error)
        drained = self.acks.drain()
        if self.has_culprit:
            self.suspects = {req_guid for req_guid, _ in drained}
        for _, waiter in drained:
            if not waiter.done():
                waiter.set_exception(self._copy())
        self._pump()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self._high_water_bytes = self.transport.get_write_buffer_limits()[1]
        # Now, together with the end of the TLS handshake: a server that refuses our certificate may reset the
        # connection after its alert, and a failed write would then end the connection before the alert is read.
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._link.stats.count(TOTAL_BYTES_RECIEVED, len(data))
        if self.error is not None:
            return
        if self._opened.done():
            self._frames_received(data)
        else:
            self._greeting_received(data)
        self._pump()

    def _frames_received(self, data: bytes) -> None:
        for item in self._reader.feed(data):
            if self.error is not None:
                return
            if isinstance(item, Response):
                self._answered(item)
            elif isinstance(item, bytes):
                self._read(item)  # the protocol handles it
            else:
                self._malformed(item)

    def _greeting_received(self, data: bytes) -> None:
        answer = self._handshake.feed(data)
        if answer is not None:
            head, rest = answer
            self._read(head)
            if rest and self.error is None:
                self._frames_received(rest)
        elif self._handshake.foreign:
            words = self._link.words(self._handshake.foreign)
            self._not_accepted(f"its answer is not valid HTTP/1.1: {words}".removesuffix(": "))
        elif self._handshake.is_whole:
            self._refused()
        elif self._handshake.status:
            self._loop.call_later(_REFUSAL_TIMEOUT_S, self._refused)

    def _refused(self) -> None:
        """The handshake was answered with a status other than 101."""
        if self.error is not None:
            return
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        answer, link = self._handshake, self._link
        self._end(
            status_error(
                answer.status,
                link.address,
                link.words(answer.body),
                retry_after=answer.retry_after,
                outcome=Outcome.NOT_DELIVERED,  # requests come after the handshake
            )
        )

    def _read(self, data: bytes) -> None:
        if self.error is not None:
            return
        transport = self.transport
        assert transport is not None
        opening = not self._opened.done()
        self._protocol.receive_data(data)
        close = self._protocol.close_rcvd
        has_backlog = close is not None and transport.get_write_buffer_size() > 0
        if not has_backlog:
            self._flush()  # pongs go out first, paused or not
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame_received(event)
            else:
                self._handshake_answered(event)
        if opening and self._protocol.handshake_exc is not None:
            self._handshake_failed(self._protocol.handshake_exc)
        elif self._protocol.parser_exc is not None:
            self._break(f"broke RFC 6455: {self._protocol.parser_exc}")
        elif close is not None and self.error is None:
            self._goodbye_received(close, has_backlog)

    def _goodbye_received(self, close: Close, has_backlog: bool) -> None:
        """The server sent a Close frame: it sends no further answers, and nothing more is written (RFC 6455, 5.5.1)."""
        assert self.transport is not None
        if not self._leaving:
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        self._fail(self._closed_error(close))
        if has_backlog:
            self.transport.abort()  # otherwise the rest of a request would follow
        else:
            # The server closes the connection; the wait for that is limited (RFC 6455, 7.1.1).
            self._loop.call_later(_CLOSE_TIMEOUT_S, self.transport.abort)

    def _closed_error(self, close: Close) -> RaccoonError:
        """The errors of requests in flight after a Close frame; with 1009, the possible cause comes first."""
        address = self._link.address
        reason = self._link.words(close.reason)
        if close.code == 1009:
            if len(self.acks) == 1 and not self._has_abandoned:
                self.suspects.clear()
                ((_, waiter),) = self.acks.drain()
                if not waiter.done():
                    waiter.set_exception(too_large(address, "1009", reason))
            else:
                self.has_culprit = True
        return ConnectionLostError(f"{address} closed the connection: {close.code} {reason}".rstrip())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.error is not None:
            return
        if self._handshake.status:
            self._refused()
            return
        self._protocol.receive_eof()
        if not self._leaving:
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        if self._opened.done():
            self._end(lost_error(exc, self._link.address))
            return
        lost = lost_error(exc, self._link.address, is_silent=True)
        said = f"{self._link.address} closed the connection during the WebSocket handshake"
        self._end(lost if isinstance(lost, TLSError) else ConnectError(said))

    # Incoming frames

    def _handshake_answered(self, answer: object) -> None:
        if self._protocol.state is OPEN and not self._opened.done():
            self._opened.set_result(None)

    def _handshake_failed(self, error: Exception) -> None:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        self._not_accepted(self._link.words(f"{error}{cause}"))

    def _not_accepted(self, why: str) -> None:
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        said = f"{self._link.address} did not accept a WebSocket: {why}"
        self._end(ProtocolError(said, outcome=Outcome.NOT_DELIVERED))

    def _frame_received(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.TEXT):
            if frame.fin:
                self._message_received(frame.opcode, bytes(frame.data))
            else:
                self._fragments, self._fragments_opcode = [bytes(frame.data)], frame.opcode
        elif frame.opcode is Opcode.CONT:
            self._fragments.append(bytes(frame.data))
            if len(self._fragments) > _MOST_FRAGMENTS:
                self._break(f"sent an answer in over {_MOST_FRAGMENTS} fragments")
                return
            if frame.fin:
                fragments, self._fragments = self._fragments, []
                self._message_received(self._fragments_opcode, b"".join(fragments))
        elif frame.opcode is Opcode.PONG:
            self._pinger.pong(bytes(frame.data))

    def _message_received(self, opcode: Opcode, data: bytes) -> None:
        if self.error is not None:
            return
        try:
            response = decode_proto_answer(data) if opcode is _BINARY else decode_json_answer(data)
        except DecodeError as error:
            self._malformed(error)
        else:
            self._answered(response)

    def _answered(self, response: Response) -> None:
        req_guid = response.data.get("req_guid")
        if not req_guid:
            self._uncorrelated(response)
            return
        is_success = response.status is _SUCCESS
        verdict, waiter = self.acks.settle(req_guid, is_success)
        if verdict is not _MATCHED:
            self._log_unmatched(verdict, req_guid)
            return
        self._has_answered = True
        if self.suspects:
            self.suspects.discard(req_guid)
        if is_success:
            if self.window.is_narrow:
                self.window.succeeded()
        elif response.code is Code.INTERNAL_ERROR:
            self.window.failed()
        if waiter.__class__ is Attempt or not waiter.done():
            waiter.set_result(response)

    def _uncorrelated(self, response: Response) -> None:
        """An answer without a guid: it refuses the whole connection, or a request that the server could not read."""
        said = f"{response.code.name}, {self._link.words(response.reason)}"
        if response.code in _REFUSALS:
            self._link.stats.count(TOTAL_CONN_ERR, 1)
            self._end(
                ServerError(
                    f"{self._link.address} refused the connection: {said}",
                    response=response,
                    retryable=True,
                    # The server refuses a connection at once, and reads nothing from it.
                    outcome=Outcome.POSSIBLY_DELIVERED if self._has_answered else Outcome.NOT_DELIVERED,
                )
            )
        elif response.status is Status.SUCCESS or len(self.acks) != 1 or self._has_abandoned:
            self.has_culprit = response.status is not Status.SUCCESS
            self._break(f"answered without a guid: {said}")
        else:
            # Only one request is in flight, so the answer is about it.
            self.suspects.clear()
            (_, waiter) = self.acks.drain()[0]
            if not waiter.done():
                waiter.set_result(response)

    def _log_unmatched(self, verdict: Verdict, req_guid: str) -> None:
        now_s = self._loop.time()
        if now_s - self._unknown_logged_s >= _UNKNOWN_LOG_INTERVAL_S:
            self._unknown_logged_s = now_s
            self._link.logger.warning(
                "%s acknowledged %.60r, which is %s here: ignored (this connection had %d unknown, %d twice, %d late)",
                self._link.address,
                req_guid,
                verdict.name.lower(),
                self.acks.unknown,
                self.acks.duplicates,
                self.acks.late,
            )

    def _malformed(self, error: DecodeError) -> None:
        self._break(f"sent a message that is not a Raccoon's answer: {error}")

    def _break(self, what: str) -> None:
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        self._end(ProtocolError(f"{self._link.address} {what}"))

    # Outgoing frames

    def _pump(self) -> None:
        if self.error is not None:
            while self._queue:
                waiter = self._queue.popleft().waiter
                if not waiter.done():
                    error = self._copy()
                    if isinstance(error, DeliveryError):
                        error.outcome = Outcome.NOT_DELIVERED  # it was never written
                    waiter.set_exception(error)
            return
        while self._queue and self._writable and self._flushed and len(self.acks) < self.window.limit:
            if self.suspects and self._is_company():
                break
            request, waiter, deadline_s = self._queue.popleft()
            if not waiter.done():
                self._write(request, waiter, deadline_s)
        if self._settled is not None and not self._settled.done() and not self._queue and not self.acks:
            self._settled.set_result(None)

    def _is_company(self) -> bool:
        """Whether the next request would be in flight together with a suspect."""
        if not self.acks:
            return False
        return self._queue[0].request.req_guid in self.suspects or any(guid in self.acks for guid in self.suspects)

    def _write(self, request: Request, waiter: AnyAttempt, deadline_s: float) -> None:
        self.acks.add(request.req_guid, waiter, deadline_s)
        if not self._keys:
            self._keys += _KEYS.unpack(os.urandom(_KEYS.size))
        frame = request.envelope.websocket_frame(_OPCODES[request.wire], self._keys.pop())
        request.written_s = time.monotonic()
        request.was_written = True
        if self._put([frame], len(frame)):
            self._look_at_buffer()

    def release(self) -> None:
        """See Transport.release."""
        super().release()
        self._look_at_buffer()

    def _look_at_buffer(self) -> None:
        transport = self.transport
        if transport is not None and self._flushed and transport.get_write_buffer_size() > self._high_water_bytes:
            # uvloop writes, and pauses us, at the end of the loop's round. Nothing more is written until then;
            # otherwise all waiting data would go into uvloop's buffer in one round.
            self._flushed = False
            self._loop.call_soon(self._round_ended)

    def _round_ended(self) -> None:
        self._flushed = True
        self._pump()

    def _flush(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
                self._answer_written()
                if self.error is not None:
                    return
            elif transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()  # TLS cannot be half-closed

    def _copy(self) -> RaccoonError:
        # One failure ends many requests: each gets its own copy of the error to fill in.
        assert self.error is not None
        error = type(self.error)(str(self.error))
        error.__dict__.update(self.error.__dict__)
        return error

    # Timers

    def _expire(self, now_s: float) -> float | None:
        for _, waiter, deadline_s in self._queue:
            if deadline_s <= now_s and not waiter.done():
                waiter.set_exception(
                    AckTimeoutError(f"could not be sent to {self._link.address} in time", outcome=Outcome.NOT_DELIVERED)
                )
        self._queue = deque(queued for queued in self._queue if not queued.waiter.done())
        expired = self.acks.expire(now_s)
        if not expired:
            self._pump()
            written_s = self.acks.next_deadline()
            deadlines_s = [*(queued.deadline_s for queued in self._queue), *([] if written_s is None else [written_s])]
            return min(deadlines_s, default=None)
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        for _, waiter in expired:
            if not waiter.done():
                waiter.set_exception(AckTimeoutError(f"no acknowledgement from {self._link.address} in time"))
        self._end(ConnectionLostError(f"connection to {self._link.address} given up: an acknowledgement was overdue"))
        return None

    def _ping(self, payload: bytes) -> None:
        if self._protocol.state is OPEN:
            self._protocol.send_ping(payload)
            self._flush()

    def _pong_missed(self) -> None:
        self._link.stats.count(TOTAL_CONN_ERR, 1)
        self._end(
            ConnectionLostError(f"{self._link.address} did not answer a ping within {self._keepalive.timeout_s:g} s")
        )
