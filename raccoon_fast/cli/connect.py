"""The client that a URL and the options of a connection ask for."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, TypeAlias

from raccoon_fast.cli.exits import UsageError
from raccoon_fast.clients.grpc import GrpcClient
from raccoon_fast.clients.rest import RestClient
from raccoon_fast.clients.websocket import WebSocketClient
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.logs import CONSOLE
from raccoon_fast.tls import TLS

if TYPE_CHECKING:
    import argparse

    from raccoon_fast.serializers import Serializer

__all__ = ["Client", "make_client"]

Client: TypeAlias = RestClient | WebSocketClient | GrpcClient


def make_client(
    arguments: argparse.Namespace, url: str, *, serializer: Serializer, wire: str = "proto", in_flight: int
) -> Client:
    """Makes the client for a URL's scheme; it connects on first use.

    Args:
        arguments: With the options of a connection.
        url: http, https, ws, wss, grpc or grpcs.
        serializer: As a client takes it.
        wire: "proto" or "json"; gRPC has only "proto".
        in_flight: Requests that may be unacknowledged at once.

    Raises:
        ValueError, UsageError: An option is not what it should be.
    """
    options: dict[str, Any] = {
        "serializer": serializer,
        "user_id": arguments.user_id,
        "group": arguments.group,
        "id_header": arguments.id_header,
        "group_header": arguments.group_header,
        "headers": dict(arguments.header),
        "retry": RetryPolicy(max_attempts=arguments.max_attempts),
        "logger": CONSOLE if arguments.debug else None,
    }
    if arguments.ca or arguments.cert or arguments.key:
        options["tls"] = _tls(arguments)
    if arguments.timeout is not None:
        options["timeout"] = arguments.timeout
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        return RestClient(url, wire=wire, connections=in_flight, **options)
    if scheme in ("ws", "wss"):
        return WebSocketClient(url, wire=wire, max_in_flight=in_flight, **options)
    if scheme not in ("grpc", "grpcs"):
        raise ValueError("the server's URL must begin with http://, https://, ws://, wss://, grpc:// or grpcs://")
    if wire != "proto":
        raise ValueError(f"--wire {wire} is for REST and WebSocket: gRPC speaks proto only")
    return GrpcClient(url, **options)


def _tls(arguments: argparse.Namespace) -> TLS:
    tls = TLS(ca=arguments.ca, cert=arguments.cert, key=arguments.key)
    try:
        tls.ssl_context()  # the same files for gRPC, which would only find the server unavailable
    except ssl.SSLError as error:
        raise UsageError(f"--ca, --cert or --key does not hold the PEM it should: {error.reason}") from error
    return tls
