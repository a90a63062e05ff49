"""Clients over REST: one POST per request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raccoon_fast.clients.async_client import AsyncClient
from raccoon_fast.clients.options import Settings, whole
from raccoon_fast.clients.sync_client import Client
from raccoon_fast.net.address import parse_address
from raccoon_fast.serializers import PROTO, Data_contra
from raccoon_fast.transports.rest.transport import RestTransport

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from raccoon_fast.clients.options import ClientOptions, Wire
    from raccoon_fast.serializers import Serializer
    from raccoon_fast.transports.base import Transport
    from raccoon_fast.transports.rest.httpx import HttpxGiven

__all__ = ["AsyncRestClient", "RestClient"]


class AsyncRestClient(AsyncClient[Data_contra]):
    """Sends requests over REST, from a program with an event loop.

    Args:
        url: "http://host:port" or "https://…"; without a path, /api/v1/events.
        serializer: How an event's data becomes bytes: PROTO, JSON, RAW, or any callable `object -> bytes`.
        wire: "proto" or "json": the encoding of the request around the events.
        connections: The largest number of keep-alive connections, with one request in flight on each; further requests
            wait.
        transport: An httpx.AsyncClient or httpx.AsyncBaseTransport to send over instead of built-in connections, for
            HTTP/2, custom authentication, tracing; or a callable that makes one on the client's event loop, and again
            in a forked child. You close an AsyncClient yourself; everything else is closed with this client.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        serializer: Serializer[Data_contra] = PROTO,  # type: ignore[assignment]  # where there is none, that is Any
        wire: Wire = "proto",
        connections: int = 8,
        transport: HttpxGiven | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = Settings(
            parse_address(url, "REST"),
            {"serializer": serializer, **options},
            default_timeout_s=15.0,
            face=AsyncRestClient,
        )
        super().__init__(settings, wire, None)
        self._connections = whole("connections", connections)
        self._http = transport
        if transport is not None:
            if options.get("proxy") is not None or settings.link.address.unix_path:
                raise ValueError("transport is given: set the proxy or the Unix socket on httpx itself")
            from raccoon_fast.transports.rest.httpx import check_httpx  # here, not when the program forks

            check_httpx(transport)

    def _make_transport(self) -> Transport:
        if self._http is not None:
            from raccoon_fast.transports.rest.httpx import HttpxTransport

            return HttpxTransport(self._settings.link, self._http)
        return RestTransport(self._settings.link, connections=self._connections)


class RestClient(Client[AsyncRestClient[Any], Data_contra]):
    """Sends requests over REST, from any thread.

    Args:
        url: "http://host:port" or "https://…"; without a path, /api/v1/events.
        serializer: How an event's data becomes bytes: PROTO, JSON, RAW, or any callable `object -> bytes`.
        wire: "proto" or "json": the encoding of the request around the events.
        connections: The largest number of keep-alive connections, with one request in flight on each; further requests
            wait.
        transport: An httpx.AsyncClient or httpx.AsyncBaseTransport, used on the client's event loop; see
            AsyncRestClient.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is invalid; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        serializer: Serializer[Data_contra] = PROTO,  # type: ignore[assignment]  # where there is none, that is Any
        wire: Wire = "proto",
        connections: int = 8,
        transport: HttpxGiven | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(
            lambda: AsyncRestClient(
                url, serializer=serializer, wire=wire, connections=connections, transport=transport, **options
            )
        )
