"""gRPC over the user's own channel: for service meshes, xDS, interceptors, tracing, call credentials."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from raccoon_fast.errors import ConnectError, ConnectionLostError
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_BYTES_SENT, TOTAL_CONN_ERR
from raccoon_fast.transports.base import Transport
from raccoon_fast.transports.grpc.streams import HTTP2Answer
from raccoon_fast.transports.grpc.transport import METHOD, PREFIX, GrpcTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.events import Response
    from raccoon_fast.transports.attempt import AnyAttempt
    from raccoon_fast.transports.base import Link, Request

__all__ = ["ChannelTransport"]

# How the details begin if grpcio's core itself reports UNAVAILABLE because no call was sent.
_NOT_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")


# The process that opened the first channel: in a forked child grpcio hangs or crashes the process.
_used_in_pid = 0


class ChannelTransport(GrpcTransport):
    """Calls `/raystack.raccoon.v1beta1.EventService/SendEvent` over a `grpc.aio.Channel`, bytes in and bytes out.

    Answers are interpreted as in GrpcTransport.

    Args:
        link: The server; its `tls`, `proxy` and `server_hostname` are ignored: the channel handles them.
        make: Called on the event loop of the first request, so once per process; gets the target if it takes an
            argument. Returns the channel, which is closed with this transport.
    """

    def __init__(self, link: Link, make: Callable[..., grpc.aio.Channel]) -> None:
        super().__init__(link)
        self._make = make
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    def start(self, request: Request, timeout_s: float) -> AnyAttempt:
        """See Transport.start."""
        return Transport.start(self, request, timeout_s)

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One call. See Transport.send."""
        if self._call is None:
            self._open_channel()
        link = self._link
        metadata = [
            (name.lower(), value.strip(" \t"))
            for name, value in link.request_headers(self._identity).items()
            if name != "User-Agent"  # grpcio's own (the channel's option "grpc.primary_user_agent")
        ]
        metadata += (request.headers or {}).items()
        message = bytes(request.envelope.payload())
        request.written_s = time.monotonic()
        link.stats.count(TOTAL_BYTES_SENT, len(message))
        call = self._call(message, timeout=timeout_s, metadata=metadata)
        try:
            body = PREFIX.pack(0, 0) + await call
            body = PREFIX.pack(0, len(body) - PREFIX.size) + body[PREFIX.size :]
            trailers = {b"grpc-status": b"0"}
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith(_NOT_CONNECTED):
                link.stats.count(TOTAL_CONN_ERR, 1)
                raise ConnectError(f"cannot connect to {link.address}: {details}") from error
            body = b""
            received: Any = error.trailing_metadata() or ()
            trailers = {key.encode(): _octets(value) for key, value in received}
            trailers[b"grpc-status"] = b"%d" % error.code().value[0]
            trailers[b"grpc-message"] = urllib.parse.quote(details).encode("ascii")
        except asyncio.CancelledError:
            call.cancel()
            raise
        except Exception as error:  # of an interceptor, or of a channel that the user closed
            raise ConnectionLostError(f"the channel to {link.address} failed: {error!r}") from error
        link.stats.count(TOTAL_BYTES_RECIEVED, len(body))
        return self._read(request, HTTP2Answer((), body, (*trailers.items(),), request.written_s))

    async def close(self) -> None:
        """See Transport.close."""
        await super().close()
        channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            await channel.close(None)

    def _open_channel(self) -> None:
        global _used_in_pid
        address = self._link.address
        if _used_in_pid not in (0, os.getpid()):
            raise ConnectError(
                f"cannot open a channel to {address}: grpcio was in use when this process was forked, and does not "
                "work after that; fork before the first request, start children with spawn, or leave out channel=",
                retryable=False,
            )
        _used_in_pid = os.getpid()
        target = f"unix:{address.unix_path}" if address.unix_path else address.authority
        if not address.unix_path and address.authority == address.host:
            target = f"{address.host}:{address.port}"
        try:
            channel = self._make(target) if _takes_target(self._make) else self._make()
        except Exception as error:
            raise ConnectError(f"channel=… failed for {address}: {error!r}") from error
        if not isinstance(channel, grpc.aio.Channel):
            raise ConnectError(f"channel=… must return a grpc.aio.Channel, not {channel!r}", retryable=False)
        self._channel = channel
        self._call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        self._identity = self._link.identity.headers()


def _takes_target(make: Callable[..., Any]) -> bool:
    try:
        inspect.signature(make).bind("")
    except TypeError:
        return False
    except ValueError:  # a function in C without a signature
        pass
    return True


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
