"""Clients over gRPC: one unary call per request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from raccoon_fast.clients.async_client import AsyncClient
from raccoon_fast.clients.options import Settings, positive
from raccoon_fast.clients.sync_client import Client
from raccoon_fast.net.address import parse_address
from raccoon_fast.serializers import PROTO, Data_contra
from raccoon_fast.transports.grpc.transport import MAX_REQUEST_BYTES, GrpcTransport
from raccoon_fast.transports.pinger import Keepalive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import grpc.aio
    from typing_extensions import Unpack

    from raccoon_fast.clients.options import ClientOptions
    from raccoon_fast.serializers import Serializer
    from raccoon_fast.transports.base import Transport

    #: Makes a channel, with the target as its argument or with none.
    Channel: TypeAlias = Callable[..., grpc.aio.Channel]

__all__ = ["AsyncGrpcClient", "GrpcClient", "check_channel"]


class AsyncGrpcClient(AsyncClient[Data_contra]):
    """Sends requests over gRPC, from a program with an event loop.

    Every call has a deadline, and carries the identity's metadata, which the server requires. A request over 4 MiB is
    refused before it is sent.

    Args:
        url: "host:port" or "grpc://host:port" for plain text, "grpcs://host:port" for TLS.
        serializer: How an event's data becomes bytes: PROTO, JSON, RAW, or any callable `object -> bytes`.
        channel: A callable that makes the grpc.aio.Channel to send over instead of a built-in connection, for service
            meshes, xDS, interceptors. It is called with the target (host:port) on the client's event loop, and again in
            a forked child. The channel then handles TLS and the proxy itself. Needs raccoon_fast[grpc].
        ping_interval: Seconds without an answer before a ping, which finds a dead connection; None sends none. One more
            follows after five minutes while calls are open and after two hours otherwise, as grpc-go's enforcement
            policy allows by default.
        pong_timeout: Seconds within which a ping must be answered; otherwise the connection is closed.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        serializer: Serializer[Data_contra] = PROTO,  # type: ignore[assignment]  # where there is none, that is Any
        channel: Channel | None = None,
        ping_interval: float | None = 30.0,
        pong_timeout: float = 10.0,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = Settings(
            parse_address(url, "gRPC"),
            {"serializer": serializer, **options},
            default_timeout_s=15.0,
            face=AsyncGrpcClient,
        )
        super().__init__(settings, "proto", MAX_REQUEST_BYTES)
        if channel is not None:
            check_channel(channel, options)
        self._channel = channel
        self._keepalive = Keepalive(
            None if ping_interval is None else positive("ping_interval", ping_interval),
            positive("pong_timeout", pong_timeout),
        )

    def _make_transport(self) -> Transport:
        if self._channel is not None:
            from raccoon_fast.transports.grpc.channel import ChannelTransport

            return ChannelTransport(self._settings.link, self._channel)
        return GrpcTransport(self._settings.link, self._keepalive)


class GrpcClient(Client[AsyncGrpcClient[Any], Data_contra]):
    """Sends requests over gRPC, from any thread.

    Every call has a deadline, and carries the identity's metadata, which the server requires. A request over 4 MiB is
    refused before it is sent.

    Args:
        url: "host:port" or "grpc://host:port" for plain text, "grpcs://host:port" for TLS.
        serializer: How an event's data becomes bytes: PROTO, JSON, RAW, or any callable `object -> bytes`.
        channel: A callable that makes the grpc.aio.Channel to send over instead of a built-in connection, for service
            meshes, xDS, interceptors. It is called with the target (host:port) on the client's event loop, and again in
            a forked child. The channel then handles TLS and the proxy itself. Needs raccoon_fast[grpc].
        ping_interval: Seconds without an answer before a ping; None sends none. See AsyncGrpcClient.
        pong_timeout: Seconds within which a ping must be answered.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        serializer: Serializer[Data_contra] = PROTO,  # type: ignore[assignment]  # where there is none, that is Any
        channel: Channel | None = None,
        ping_interval: float | None = 30.0,
        pong_timeout: float = 10.0,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(
            lambda: AsyncGrpcClient(
                url,
                serializer=serializer,
                channel=channel,
                ping_interval=ping_interval,
                pong_timeout=pong_timeout,
                **options,
            )
        )


def check_channel(channel: object, options: Mapping[str, Any]) -> None:
    """Check that `channel=` can be used, and load its modules now, not when the program forks.

    Raises:
        TypeError: `channel` is not callable.
        ValueError: grpcio is not installed, or an option applies only to built-in connections.
    """
    if not callable(channel):
        raise TypeError(f"channel takes a callable that returns a grpc.aio.Channel, not {type(channel).__name__}")
    for option in ("tls", "proxy", "server_hostname"):
        if options.get(option) is not None:
            raise ValueError(f"{option} and channel are both given: set {option} on the channel itself")
    try:
        from raccoon_fast.transports.grpc import channel as _channel  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError("channel needs the package grpcio: pip install 'raccoon_fast[grpc]'") from error
