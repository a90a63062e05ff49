"""Clients over gRPC: one unary call a request."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from raccoon_fast.clients.async_client import AsyncClient
from raccoon_fast.clients.options import Settings
from raccoon_fast.clients.sync_client import Client
from raccoon_fast.net.address import parse_address
from raccoon_fast.transports.grpc_transport import MAX_REQUEST_BYTES, GrpcTransport

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from raccoon_fast.clients.options import ClientOptions
    from raccoon_fast.transports.base import Transport

__all__ = ["AsyncGrpcClient", "GrpcClient"]


class AsyncGrpcClient(AsyncClient):
    """Sends requests over gRPC, from a program with an event loop.

    Every call has a deadline, and carries the identity's metadata, which the server demands. A request over 4 MiB is
    refused before it is sent.

    Args:
        url: "host:port" or "grpc://host:port" for plain text, "grpcs://host:port" for TLS.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is not what it should be; the message names it.
    """

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        settings = Settings(parse_address(url, "gRPC"), options, default_timeout_s=15.0)
        super().__init__(settings, "proto", MAX_REQUEST_BYTES)

    def _make_transport(self) -> Transport:
        return GrpcTransport(self._settings.link)


class GrpcClient(Client[AsyncGrpcClient]):
    """Sends requests over gRPC, from any thread.

    Every call has a deadline, and carries the identity's metadata, which the server demands. A request over 4 MiB is
    refused before it is sent.

    Args:
        url: "host:port" or "grpc://host:port" for plain text, "grpcs://host:port" for TLS.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is not what it should be; the message names it.
    """

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(functools.partial(AsyncGrpcClient, url, **options))
