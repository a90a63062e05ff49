"""Clients over REST: one POST a request."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from raccoon_fast.clients.async_client import AsyncClient
from raccoon_fast.clients.options import Settings, whole
from raccoon_fast.clients.sync_client import Client
from raccoon_fast.net.address import parse_address
from raccoon_fast.transports.rest import RestTransport

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

    from raccoon_fast.clients.options import ClientOptions
    from raccoon_fast.transports.base import Transport

__all__ = ["AsyncRestClient", "RestClient"]


class AsyncRestClient(AsyncClient):
    """Sends requests over REST, from a program with an event loop.

    Args:
        url: "http://host:port" or "https://…"; without a path, /api/v1/events.
        wire: "proto" or "json": the encoding of the request around the events.
        connections: Keep-alive connections at most, with one request in flight on each; further requests wait.
        transport: An httpx.AsyncClient or httpx.AsyncBaseTransport to send over instead of connections of our own, for
            proxies, HTTP/2, custom authentication. A client is closed by its owner, a transport with this client.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is not what it should be; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        wire: str = "proto",
        connections: int = 8,
        transport: httpx.AsyncClient | httpx.AsyncBaseTransport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = Settings(parse_address(url, "REST"), options, default_timeout_s=15.0)
        super().__init__(settings, wire, None)
        self._connections = whole("connections", connections)
        self._http = transport
        if transport is not None:
            if options.get("proxy") is not None or settings.link.address.unix_path:
                raise ValueError("transport is given: set the proxy, or the Unix socket, of httpx itself")
            import httpx

            import raccoon_fast.transports.httpx_transport  # noqa: F401 - here, not at a moment when the program forks

            if not isinstance(transport, (httpx.AsyncClient, httpx.AsyncBaseTransport)):
                raise TypeError(
                    f"transport takes an httpx.AsyncClient or httpx.AsyncBaseTransport, not {type(transport).__name__}"
                )

    def _make_transport(self) -> Transport:
        if self._http is not None:
            from raccoon_fast.transports.httpx_transport import HttpxTransport

            return HttpxTransport(self._settings.link, self._http)
        return RestTransport(self._settings.link, connections=self._connections)


class RestClient(Client[AsyncRestClient]):
    """Sends requests over REST, from any thread.

    Args:
        url: "http://host:port" or "https://…"; without a path, /api/v1/events.
        wire: "proto" or "json": the encoding of the request around the events.
        connections: Keep-alive connections at most, with one request in flight on each; further requests wait.
        transport: An httpx.AsyncClient or httpx.AsyncBaseTransport, used on the client's own event loop; see
            AsyncRestClient.
        **options: See ClientOptions.

    Raises:
        TypeError, ValueError: An option is not what it should be; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        wire: str = "proto",
        connections: int = 8,
        transport: httpx.AsyncClient | httpx.AsyncBaseTransport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(
            functools.partial(AsyncRestClient, url, wire=wire, connections=connections, transport=transport, **options)
        )
