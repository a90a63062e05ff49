"""gRPC: unary calls of EventService.SendEvent over grpc.aio, messages as ready bytes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from raccoon_fast.core.answers import decode_proto_answer
from raccoon_fast.errors import (
    AckTimeoutError,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    MessageTooLargeError,
    Outcome,
    ProtocolError,
    ServerError,
    TLSError,
)
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_BYTES_SENT, TOTAL_CONN_ERR
from raccoon_fast.tls import TLS
from raccoon_fast.transports.base import MAX_ANSWER_BYTES, Transport

if TYPE_CHECKING:
    from raccoon_fast.events import Response
    from raccoon_fast.transports.base import Link, Request

__all__ = ["MAX_REQUEST_BYTES", "GrpcTransport"]

#: What a grpc-go server takes unless it is set otherwise; over it the answer is RESOURCE_EXHAUSTED.
MAX_REQUEST_BYTES = 4 * 1024 * 1024

METHOD = "/raystack.raccoon.v1beta1.EventService/SendEvent"

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Otherwise channels to one server share a connection, also with one made before a fork, which a child cannot use.
    ("grpc.use_local_subchannel_pool", 1),
    # Found again within a second of the server's return; by default it takes several.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A server that moved is found as soon; by default a name is looked up once in 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # grpc-go answers a ping sooner than 5 minutes, or without an open call, with GOAWAY too_many_pings.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
)

# A call's deadline is kept here, and grpc's own comes later: after the process was held up grpc would run out of time
# before it reads the answer that is there. Its threads need a moment for that.
_STALL_S = 60.0
_GRACE_S = 0.05

# In the details of UNAVAILABLE, which is all that gRPC says when a handshake fails.
_CERTIFICATE_WORDS = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "Peer name", "Hostname Verification")
_NAME_WORDS = ("DNS resolution failed", "errors resolving", "lookup failed")
_TLS_WORDS = (*_CERTIFICATE_WORDS, "SSL_ERROR_SSL", "Ssl handshake failed", "TSI_")

# CPython 3.12.0 to 3.12.2 start no thread while they exit, and grpc.aio crashes where it cannot start its own.
_NO_THREADS_AT_EXIT = (3, 12) <= sys.version_info < (3, 12, 3)

# The process that made a channel, if one did.
_user_pid = 0


class GrpcTransport(Transport):
    """Calls `/raystack.raccoon.v1beta1.EventService/SendEvent`.

    The channel is made with the first call, so that a client made before a fork works in the child. After a fork of a
    process that made a channel, grpc hangs or crashes in the child: a call is refused there with ConnectError.

    Args:
        link: The server; grpc or grpcs.
    """

    max_request_bytes = MAX_REQUEST_BYTES

    def __init__(self, link: Link) -> None:
        if link.tls is not None and not isinstance(link.tls, TLS):
            raise TypeError("tls takes raccoon_fast.TLS(ca=…, cert=…, key=…) for gRPC: it cannot use an ssl.SSLContext")
        self._link = link
        self._identity: dict[str, str] = {}
        self._metadata: grpc.aio.Metadata | None = None
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._expired: set[Any] = set()
        self._closed = False
        # Held here because the event loop itself keeps only weak references to tasks.
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One call, with a deadline. See Transport.send."""
        if self._closed:
            raise ClientClosedError("the client was closed")
        link = self._link
        if self._channel is None:
            self._connect()
        metadata = self._metadata
        if metadata is None or link.authorization is not None:
            headers = link.request_headers(self._identity)
            pairs = [(name.lower(), value) for name, value in headers.items() if name != "User-Agent"]
            metadata = self._metadata = grpc.aio.Metadata(*pairs)
        # grpc takes nothing but bytes: this is the one copy that cannot be had for less.
        message = bytes(request.envelope.payload())
        request.written_s = time.monotonic()
        call = self._call(message, timeout=timeout_s + _STALL_S, metadata=metadata)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout_s, loop.call_later, _GRACE_S, self._expire, call)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise self._named(error, timeout_s) from error
        except asyncio.CancelledError:
            if call in self._expired:
                raise AckTimeoutError(f"no answer from {link.address} within {timeout_s:g} s") from None
            if self._closed:  # which cancels the channel's calls
                raise ConnectionLostError(f"connection to {link.address} was closed before the answer") from None
            raise
        finally:
            timer.cancel()
            self._expired.discard(call)
        link.stats.count(TOTAL_BYTES_SENT, len(message))
        link.stats.count(TOTAL_BYTES_RECIEVED, len(answer))
        try:
            response = decode_proto_answer(answer)
        except DecodeError as error:
            raise ProtocolError(f"{link.address} answered what is not a Raccoon's answer: {error}") from error
        if response.req_guid != request.req_guid:
            raise ProtocolError(
                f"{link.address} answered for {response.req_guid!r} when asked about {request.req_guid!r}"
            )
        return response

    def user_agent_changed(self) -> None:
        """A channel's user agent is fixed when it is made: the next call makes a new channel."""
        if self._channel is not None:
            task = asyncio.ensure_future(self._channel.close(grace=60.0))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._channel = None

    async def close(self) -> None:
        """See Transport.close."""
        self._closed = True
        for task in [*self._closing]:
            task.cancel()
        channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            await channel.close(grace=None)

    def _expire(self, call: Any) -> None:
        if call.cancel():
            self._expired.add(call)

    def _connect(self) -> None:
        global _user_pid
        link = self._link
        if _user_pid not in (0, os.getpid()):
            raise ConnectError(
                f"cannot connect to {link.address}: this process was forked from one that had used gRPC, and grpc does "
                "not work after that; use gRPC only after the fork, or use ws:// or http://",
                retryable=False,
            )
        if _NO_THREADS_AT_EXIT and not threading.main_thread().is_alive():
            raise ConnectError(
                f"cannot connect to {link.address}: grpc needs a thread, and this Python starts none while it exits; "
                "close what sends before that, or use Python 3.12.3 or newer",
                retryable=False,
            )
        _user_pid = os.getpid()
        self._identity, self._metadata = link.identity.headers(), None
        host = f"[{link.address.host}]" if ":" in link.address.host else link.address.host
        target = f"{host}:{link.address.port}"
        options = (*_OPTIONS, ("grpc.primary_user_agent", link.user_agent))
        if link.address.secure:
            tls = link.tls if isinstance(link.tls, TLS) else TLS()
            self._channel = grpc.aio.secure_channel(target, tls.channel_credentials(), options=options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        # Without a serializer and a deserializer the messages are bytes.
        self._call = self._channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)

    def _named(self, error: grpc.aio.AioRpcError, timeout_s: float) -> Exception:
        """The project's error for a gRPC status (grpc.github.io/grpc/core/md_doc_statuscodes.html)."""
        address = self._link.address
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return AckTimeoutError(f"no answer from {address} within {timeout_s:g} s")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return MessageTooLargeError(
                f"{address} refused a request as too large: {details}; send fewer events at once"
            )
        if code is grpc.StatusCode.UNAVAILABLE or (code is grpc.StatusCode.INTERNAL and "RST_STREAM" in details):
            self._link.stats.count(TOTAL_CONN_ERR, 1)
            if any(word in details for word in _TLS_WORDS):
                if any(word in details for word in _CERTIFICATE_WORDS):
                    return TLSError(f"cannot trust {address}: {details}")
                # With TLS 1.3 the server's refusal of a client certificate shows as data that cannot be decrypted.
                return TLSError(f"TLS with {address} failed, or it refused our certificate: {details}")
            if any(word in details for word in _NAME_WORDS):
                return ConnectError(f"cannot resolve {address.host}: {details}")
            if "failed to connect" in details:
                return ConnectError(f"cannot connect to {address}: {details}")
            return ConnectionLostError(f"connection to {address} was lost before the answer: {details}")
        if code is grpc.StatusCode.CANCELLED:
            return ConnectionLostError(f"call to {address} was cancelled: {details}")
        retryable = code in (grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return ServerError(
            f"{address} answered {code.name}: {details}",
            status=code.name,
            retryable=retryable,
            outcome=Outcome.POSSIBLY_DELIVERED if retryable else Outcome.NOT_DELIVERED,
        )
