"""gRPC: unary calls of EventService.SendEvent (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md), built-in HTTP/2 client.

With grpcio a call costs several times as much as all other work for a batch, in threads that wake one another, and
grpcio does not survive a fork. A unary call needs only a small part of HTTP/2.
"""

from __future__ import annotations

import asyncio
import functools
import re
import struct
import urllib.parse
from typing import TYPE_CHECKING

from raccoon_fast.core.answers import decode_proto_answer
from raccoon_fast.errors import (
    AckTimeoutError,
    ConnectionLostError,
    DecodeError,
    DeliveryError,
    Outcome,
    ProtocolError,
    RaccoonError,
    ServerError,
)
from raccoon_fast.net.tcp import open_tcp
from raccoon_fast.stats import TOTAL_CONN_ERR
from raccoon_fast.transports.attempt import Attempt
from raccoon_fast.transports.base import GRPC_UNREAD, Transport
from raccoon_fast.transports.dialer import Dialer
from raccoon_fast.transports.grpc.connection import NO_PINGS, HTTP2Connection, RefusedError
from raccoon_fast.transports.grpc.frames import encode_header
from raccoon_fast.transports.http_answers import (
    MAX_RETRY_AFTER_S,
    http_advice,
    http_outcome,
    retry_after_s,
    too_large,
)

if TYPE_CHECKING:
    from raccoon_fast.events import Response
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Link, Request
    from raccoon_fast.transports.grpc.streams import HTTP2Answer, HTTP2Stream
    from raccoon_fast.transports.pinger import Keepalive

__all__ = ["MAX_REQUEST_BYTES", "METHOD", "PREFIX", "GrpcTransport"]

#: The default limit of a grpc-go server; it answers a larger message with RESOURCE_EXHAUSTED.
MAX_REQUEST_BYTES = 4 * 1024 * 1024

METHOD = "/raystack.raccoon.v1beta1.EventService/SendEvent"

# The deadline of a call is kept here, and the one sent to the server is later: the server would cancel the publishing
# of events that may still be acknowledged in time.
_STALL_S = 60.0
_MOST_MS = 99_999_999  # grpc-timeout has eight digits

# A message's prefix: not compressed, and its length.
PREFIX = struct.Struct(">BI")
# Whole fields of HPACK's static table (RFC 7541, appendix A): 3, 6 and 7.
_POST, _SCHEME_HTTP, _SCHEME_HTTPS = b"\x83", b"\x86", b"\x87"

# By number (grpc.github.io/grpc/core/md_doc_statuscodes.html).
_CODES = {
    b"1": "CANCELLED",
    b"2": "UNKNOWN",
    b"3": "INVALID_ARGUMENT",
    b"4": "DEADLINE_EXCEEDED",
    b"5": "NOT_FOUND",
    b"6": "ALREADY_EXISTS",
    b"7": "PERMISSION_DENIED",
    b"8": "RESOURCE_EXHAUSTED",
    b"9": "FAILED_PRECONDITION",
    b"10": "ABORTED",
    b"11": "OUT_OF_RANGE",
    b"12": "UNIMPLEMENTED",
    b"13": "INTERNAL",
    b"14": "UNAVAILABLE",
    b"15": "DATA_LOSS",
    b"16": "UNAUTHENTICATED",
}
# The gRPC code for an HTTP status of a proxy (doc/http-grpc-status-mapping.md).
_HTTP_CODES = {
    b"400": "INTERNAL",
    b"401": "UNAUTHENTICATED",
    b"403": "PERMISSION_DENIED",
    b"404": "UNIMPLEMENTED",
    b"429": "UNAVAILABLE",
    b"502": "UNAVAILABLE",
    b"503": "UNAVAILABLE",
    b"504": "UNAVAILABLE",
}
_RETRYABLE = ("ABORTED", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
# Codes that mean that nothing was done. The other codes may also come after the events were accepted: INTERNAL, UNKNOWN
# and DATA_LOSS from the framework when it fails to answer, UNAVAILABLE from a proxy whose connection broke.
_UNTAKEN = (
    "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "PERMISSION_DENIED", "UNAUTHENTICATED",
    "UNIMPLEMENTED",
)  # fmt: skip
# How long a producer does not use a server that forbids retries without naming a time.
_NO_RETRY_S = 30.0
# The texts of implementations and proxies for a message over their limit: grpc-go and C-core "received message larger
# than max", Java "message exceeds maximum size", .NET "message exceeds the maximum configured message size", tonic
# "message length too large", Envoy "Payload Too Large", nginx "Request Entity Too Large", RFC 9110 "Content Too Large".
_TOO_LARGE = re.compile(
    r"\b(message|payload|body|entity|content)( \S+){0,4}? (too (large|big|long)|larger than|exceed\w*( \S+){0,4}? "
    r"(max\w*|limit|size))|\brequest( size| length)?( is)? (too (large|big)|larger than)|"
    r"\btoo (large|big)( a)? (message|payload|body|request|entity)",
    re.IGNORECASE,
)
# Other limits in similar words.
_OTHER_LIMITS = re.compile(
    r"header|cookie|metadata|\brates?\b|quota|\bcount\b|number of|\bper (second|minute)\b|\bur[il]\b", re.IGNORECASE
)


class GrpcTransport(Transport):
    """Calls `/raystack.raccoon.v1beta1.EventService/SendEvent`, over one connection that is opened when it is needed.

    Args:
        link: The server; grpc or grpcs.
        keepalive: Our own pings.
    """

    max_request_bytes = MAX_REQUEST_BYTES

    def __init__(self, link: Link, keepalive: Keepalive = NO_PINGS) -> None:
        self._link = link
        self._keepalive = keepalive
        self._identity: dict[str, str] = {}
        self._head = b""
        self._head_agent: str | None = None
        # With the last requested timeout, which is usually the next one too.
        self._timed_head = b""
        self._timeout_ms = 0
        # Head and trailers of the last answer of status 0.
        self._ok: tuple[object, object] = (None, None)
        self._dialer: Dialer[HTTP2Connection] = Dialer(link, self._open)
        self._again: set[asyncio.Task[None]] = set()
        # Connections that accept no more requests, but still have answers to come.
        self._leaving: list[HTTP2Connection] = []

    @property
    def connections(self) -> int:
        """See Transport.connections."""
        return self._dialer.connections

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One call. See Transport.send."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        connection = await self._dialer.get(deadline_s)
        attempt: asyncio.Future[Response] = loop.create_future()
        self._begin(connection, request, attempt, deadline_s)
        return await attempt

    def start(self, request: Request, timeout_s: float) -> AnyAttempt:
        """Starts at once if a connection is open. See Transport.start."""
        connection = self._dialer.connection
        if connection is None or not connection.usable:
            return super().start(request, timeout_s)
        attempt = Attempt()
        self._begin(connection, request, attempt, connection.now_s() + timeout_s)
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
        connections = [*self._leaving, *([] if connection is None else [connection])]
        self._leaving.clear()
        if connections:
            await asyncio.gather(*(one.close() for one in connections))

    async def _open(self, before: HTTP2Connection | None) -> HTTP2Connection:
        link = self._link
        self._leaving = [one for one in (*self._leaving, before) if one is not None and one.error is None]
        has_table = before is not None and before.needs_table
        connection = await open_tcp(
            link, lambda: HTTP2Connection(link, self._keepalive, has_table=has_table), link.connect_timeout_s
        )
        await connection.open(link.connect_timeout_s)
        # A new id, as for every connection.
        self._identity, self._head_agent = link.identity.headers(), None
        return connection

    def _begin(
        self,
        connection: HTTP2Connection,
        request: Request,
        attempt: AnyAttempt,
        deadline_s: float,
        *,
        is_again: bool = False,
    ) -> None:
        link = self._link
        if link.authorization is not None or link.user_agent != self._head_agent:
            self._head_agent = link.user_agent
            self._head = _start_of_head(link, self._identity)
            self._timeout_ms = 0
        timeout_ms = int((deadline_s - connection.now_s() + _STALL_S) * 1000.0)
        if timeout_ms != self._timeout_ms:
            self._timeout_ms = timeout_ms
            self._timed_head = self._head + encode_header(b"grpc-timeout", b"%dm" % min(timeout_ms, _MOST_MS))
        head = self._timed_head
        if request.headers:
            fields = request.headers.items()
            head += b"".join(encode_header(name.encode("ascii"), value.encode("ascii")) for name, value in fields)
        envelope = request.envelope
        message = envelope.prefixed(PREFIX.pack(0, envelope.nbytes))
        ended = functools.partial(self._ended, connection, request, attempt, deadline_s, is_again)
        stream = connection.begin(head, message, deadline_s, ended, request)
        if not isinstance(attempt, Attempt):
            attempt.add_done_callback(functools.partial(_cancel, connection, stream))

    def _ended(
        self,
        connection: HTTP2Connection,
        request: Request,
        attempt: AnyAttempt,
        deadline_s: float,
        is_again: bool,
        outcome: HTTP2Answer | RaccoonError,
    ) -> None:
        if attempt.done():
            return
        if isinstance(outcome, RefusedError) and (not is_again or (connection.has_answered and not connection.usable)):
            # The end of a connection is not a failure of the server: a new connection takes the request. nginx ends
            # each connection after 1,000 requests, even if others wait for their turn. A request refused for another
            # reason is tried once more at once.
            task = asyncio.ensure_future(self._begin_again(request, attempt, deadline_s))
            self._again.add(task)
            task.add_done_callback(self._again.discard)
            return
        try:
            if isinstance(outcome, RaccoonError):
                raise outcome
            request.written_s = outcome.written_s
            if outcome.fields is self._ok[0] and outcome.trailers is self._ok[1]:
                response = self._message(request, outcome.body)
            else:
                response = self._read(request, outcome)
        except Exception as error:  # noqa: BLE001 - any error is the outcome of the attempt
            if isinstance(error, ServerError) and not error.retryable and _is_of_proxy(outcome) and connection.usable:
                # The server may keep to the settings with which the connection began, as Caddy does over plain HTTP/2.
                connection.move_on()
            attempt.set_exception(error)
        else:
            attempt.set_result(response)

    async def _begin_again(self, request: Request, attempt: AnyAttempt, deadline_s: float) -> None:
        try:
            connection = await self._dialer.get(deadline_s)
            if not attempt.done():
                self._begin(connection, request, attempt, deadline_s, is_again=True)
        except Exception as error:  # noqa: BLE001 - any error is the outcome of the attempt
            if not attempt.done():
                attempt.set_exception(error)

    def _read(self, request: Request, answer: HTTP2Answer) -> Response:
        """The server's answer, or the error for it."""
        address = self._link.address
        fields = dict(answer.fields)
        trailers = dict(answer.trailers) or fields  # trailers without a body arrive as the head
        number = trailers.get(b"grpc-status") or fields.get(b"grpc-status")
        if number is None:
            http_status = fields.get(b":status", b"")
            if http_status != b"200":
                raise self._refused(http_status, fields.get(b"retry-after", b"").decode("latin-1"), answer.body)
            raise ProtocolError(f"{address} answered without a gRPC status; is this a Raccoon's gRPC port?")
        if number != b"0":
            quoted = trailers.get(b"grpc-message") or fields.get(b"grpc-message", b"")
            error = self._named(_CODES.get(number, "UNKNOWN"), urllib.parse.unquote(quoted.decode("ascii", "replace")))
            if isinstance(error, DeliveryError):
                retry_after = fields.get(b"retry-after") or trailers.get(b"retry-after", b"")
                error.retry_after_s = retry_after_s(retry_after.decode("latin-1"))
                _heed_pushback(error, trailers.get(b"grpc-retry-pushback-ms"))
            raise error
        self._ok = answer.fields, answer.trailers
        return self._message(request, answer.body)

    def _message(self, request: Request, body: bytes) -> Response:
        address = self._link.address
        if len(body) < PREFIX.size or PREFIX.unpack_from(body) != (0, len(body) - PREFIX.size):
            raise ProtocolError(f"{address} answered OK with {len(body)} bytes that are not one plain message")
        try:
            response = decode_proto_answer(body[PREFIX.size :])
        except DecodeError as error:
            raise ProtocolError(f"{address} sent a message that is not a Raccoon's answer: {error}") from error
        if response.data.get("req_guid", "") != request.req_guid:
            raise ProtocolError(
                f"{address} answered for {response.req_guid!r:.60} when asked about {request.req_guid!r}"
            )
        return response

    def _refused(self, http_status: bytes, retry_after: str, body: bytes) -> RaccoonError:
        """The project's error for an HTTP status instead of a gRPC status, from a proxy or another server."""
        address = self._link.address
        digits = http_status[:3].decode("ascii", "replace")
        status = int(digits) if digits.isdigit() else 0
        words = self._link.words(body)
        if status == 413:
            return too_large(address, "HTTP status 413", words)
        code = _HTTP_CODES.get(http_status, "UNKNOWN")
        if code == "UNAVAILABLE":
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        said = ": ".join(part for part in (f"HTTP status {digits}", words) if part)
        advice = "is this the server's gRPC port?" if status == 404 else http_advice(status)
        return ServerError(
            f"{address} answered {code}: {said}{'; ' if advice else ''}{advice}",
            status=code,
            retryable=code in _RETRYABLE,
            outcome=http_outcome(status),
            retry_after_s=retry_after_s(retry_after),
            said=said,
        )

    def _named(self, code: str, details: str) -> RaccoonError:
        """The project's error for a gRPC status."""
        address = self._link.address
        said = self._link.words(details)
        if says_too_large(details):
            return too_large(address, code, said)
        if code == "DEADLINE_EXCEEDED":
            return AckTimeoutError(f"{address} gave up: {said or code}")
        if code == "CANCELLED":
            return ConnectionLostError(f"{address} cancelled the call: {said}")
        if code == "UNAVAILABLE":
            self._link.stats.count(TOTAL_CONN_ERR, 1)
        is_unread = code == "INTERNAL" and said.startswith(GRPC_UNREAD)
        return ServerError(
            f"{address} answered {code}: {said}",
            status=code,
            retryable=code in _RETRYABLE,
            outcome=Outcome.NOT_DELIVERED if code in _UNTAKEN or is_unread else Outcome.POSSIBLY_DELIVERED,
            said=said,
        )


def _is_of_proxy(outcome: HTTP2Answer | RaccoonError) -> bool:
    """Whether an HTTP status came instead of a gRPC server's answer."""
    return not isinstance(outcome, RaccoonError) and dict(outcome.fields).get(b":status") != b"200"


def says_too_large(said: str) -> bool:
    """Whether these words in an answer mean that the message is too large."""
    return _TOO_LARGE.search(said) is not None and _OTHER_LIMITS.search(said) is None


def _heed_pushback(error: DeliveryError, pushback: bytes | None) -> None:
    """Follow the server's grpc-retry-pushback-ms (gRFC A6).

    Wait that long; do not retry if it is below 0 or unreadable.

    In that case a client's request fails, and a producer, which must deliver its events, does not use this server for a
    while.
    """
    if pushback is None:
        return
    try:
        milliseconds = int(pushback)
    except ValueError:
        milliseconds = -1
    if milliseconds < 0:
        error.retryable = False
        error.retry_after_s = _NO_RETRY_S
    else:
        error.retry_after_s = min(milliseconds / 1000.0, MAX_RETRY_AFTER_S)


def _cancel(connection: HTTP2Connection, stream: HTTP2Stream, attempt: asyncio.Future[Response]) -> None:
    if attempt.cancelled():
        connection.cancel(stream)


def _start_of_head(link: Link, identity: dict[str, str]) -> bytes:
    """The header block of a call without its timeout. Values were checked for CR and LF when the client was created."""
    address = link.address
    fields = [
        _POST,
        _SCHEME_HTTPS if address.secure else _SCHEME_HTTP,
        encode_header(b":path", METHOD.encode("ascii")),
        encode_header(b":authority", address.authority.encode("ascii")),
        encode_header(b"te", b"trailers"),
        encode_header(b"content-type", b"application/grpc"),
    ]
    for name, value in link.request_headers(identity).items():
        # HTTP/1.1 allows spaces around a value and ignores them; HTTP/2 does not allow them (RFC 9113, 8.2.1).
        octets = value.strip(" \t").encode("latin-1")
        fields.append(encode_header(name.lower().encode("latin-1"), octets, secret=name == "Authorization"))
    return b"".join(fields)
