"""What URLs and the options of a connection ask for."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from raccoon_fast.cli.exits import UsageError
from raccoon_fast.delivery.retry import RetryPolicy
from raccoon_fast.logs import CONSOLE
from raccoon_fast.producer import Producer
from raccoon_fast.tls import TLS

if TYPE_CHECKING:
    import argparse

    from raccoon_fast.serializers import Serializer

__all__ = ["connection_options", "make_producer"]

# More than a batch of lines takes in any wire format, and less than gRPC carries.
_BATCH_BYTES = 3 << 20
# A batch of lines is sealed by its count or by a flush: one that lingers out half appended would go out as two.
_LINGER_S = 86_400.0


def make_producer(
    arguments: argparse.Namespace,
    url: str,
    *,
    serializer: Serializer,
    wire: str = "proto",
    in_flight: int,
    batch_events: int,
) -> Producer:
    """Makes the producer for a URL; it connects on first use.

    Args:
        arguments: With the options of a connection.
        url: http, https, ws, wss, grpc or grpcs.
        serializer: As a producer takes it.
        wire: "proto" or "json"; gRPC has only "proto".
        in_flight: Requests that may be unacknowledged at once.
        batch_events: Events in one request.

    Raises:
        ValueError, UsageError: An option is not what it should be.
    """
    if wire != "proto" and url.startswith("grpc"):
        raise ValueError(f"--wire {wire} is for REST and WebSocket: gRPC speaks proto only")
    return Producer(
        url,
        wire=wire,
        linger=_LINGER_S,
        max_in_flight=in_flight,
        batch_events=batch_events,
        batch_bytes=_BATCH_BYTES,
        serializer=serializer,
        retry=RetryPolicy(max_attempts=arguments.max_attempts),
        **connection_options(arguments, url),
    )


def connection_options(arguments: argparse.Namespace, url: str) -> dict[str, Any]:
    """What the options of a connection are to a client, and to a producer.

    Args:
        arguments: With the options of a connection.
        url: Must be http, https, ws, wss, grpc or grpcs.

    Raises:
        ValueError, UsageError: An option is not what it should be.
    """
    if url.partition("://")[0] not in ("http", "https", "ws", "wss", "grpc", "grpcs"):
        raise ValueError("the server's URL must begin with http://, https://, ws://, wss://, grpc:// or grpcs://")
    options: dict[str, Any] = {
        "user_id": arguments.user_id,
        "group": arguments.group,
        "id_header": arguments.id_header,
        "group_header": arguments.group_header,
        "headers": dict(arguments.header),
        "logger": CONSOLE if arguments.debug else None,
    }
    if arguments.ca or arguments.cert or arguments.key:
        options["tls"] = _tls(arguments)
    if arguments.timeout is not None:
        options["timeout"] = arguments.timeout
    return options


def _tls(arguments: argparse.Namespace) -> TLS:
    tls = TLS(ca=arguments.ca, cert=arguments.cert, key=arguments.key)
    try:
        tls.ssl_context()  # the same files for gRPC, which would only find the server unavailable
    except ssl.SSLError as error:
        raise UsageError(f"--ca, --cert or --key does not hold the PEM it should: {error.reason}") from error
    return tls
