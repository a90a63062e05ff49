"""httpx as an extension point, both ways.

`HttpxTransport` sends over a user's `httpx.AsyncClient` or `httpx.AsyncBaseTransport` (proxies, HTTP/2, custom
authentication, mocks). `PooledTransport` offers our own connections to an `httpx.AsyncClient` of the user's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

from raccoon_fast.errors import AckTimeoutError, ConnectError, ConnectionLostError, ProtocolError, TransportError
from raccoon_fast.net.address import Address
from raccoon_fast.net.tcp import connect_error
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_BYTES_SENT, TOTAL_CONN_ERR
from raccoon_fast.transports.base import MAX_ANSWER_BYTES, Identity, Link, Transport
from raccoon_fast.transports.http_answers import CONTENT_TYPES, read_answer
from raccoon_fast.transports.rest import HTTPPool

if TYPE_CHECKING:
    import ssl

    from raccoon_fast.events import Response
    from raccoon_fast.tls import TLS
    from raccoon_fast.transports.base import Request

__all__ = ["HttpxGiven", "HttpxTransport", "PooledTransport", "check_httpx"]

#: What a user may hand in.
HttpxGiven = httpx.AsyncClient | httpx.AsyncBaseTransport | Callable[[], httpx.AsyncClient | httpx.AsyncBaseTransport]


class HttpxTransport(Transport):
    """POSTs to `/api/v1/events` through httpx.

    httpx does not show an answer that came before the request's body was read: such a 400 is a ConnectionLostError.

    Args:
        link: The server; http or https. Its `tls` is not used, httpx's own settings are.
        http: The user's; or a callable that makes it, on the event loop of the first request, so once per process. An
            AsyncClient that was handed in is closed by its owner, all else with this transport.
    """

    def __init__(self, link: Link, http: HttpxGiven) -> None:
        self._link = link
        self._given = http
        self._owned = not isinstance(http, httpx.AsyncClient)
        self._client: httpx.AsyncClient | None = None

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One POST. See Transport.send."""
        link = self._link
        address = link.address
        headers = {**link.request_headers(), "Content-Type": CONTENT_TYPES[request.wire]}
        body = bytes(request.envelope.payload())
        request.written_s = time.monotonic()
        try:
            status, answer_headers, answer = await asyncio.wait_for(self._post(headers, body, timeout_s), timeout_s)
        except (asyncio.TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            raise AckTimeoutError(f"no answer from {address} within {timeout_s:g} s") from None
        except httpx.HTTPError as error:
            link.stats.count(TOTAL_CONN_ERR, 1)
            raise _named(error, address) from error
        return read_answer(
            status,
            answer,
            lambda name: answer_headers.get(name, ""),
            wire=request.wire,
            req_guid=request.req_guid,
            address=address,
            words=link.words,
        )

    async def _post(self, headers: dict[str, str], body: bytes, timeout_s: float) -> tuple[int, httpx.Headers, bytes]:
        stats = self._link.stats
        stats.count(TOTAL_BYTES_SENT, len(body))
        async with self._http().stream(
            "POST", self._link.address.uri, content=body, headers=headers, timeout=timeout_s, follow_redirects=False
        ) as answer:
            parts, size = [], 0
            async for part in answer.aiter_bytes():
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise ProtocolError(f"{self._link.address} answered with over {MAX_ANSWER_BYTES} bytes")
                parts.append(part)
            stats.count(TOTAL_BYTES_RECIEVED, size)
            return answer.status_code, answer.headers, b"".join(parts)

    async def close(self) -> None:
        """See Transport.close."""
        if self._owned and self._client is not None:
            await self._client.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            made = self._given
            if not isinstance(made, (httpx.AsyncClient, httpx.AsyncBaseTransport)):
                try:
                    made = made()
                except Exception as error:
                    raise ConnectError(f"transport=… failed for {self._link.address}: {error!r}") from error
            if isinstance(made, httpx.AsyncBaseTransport):
                made = httpx.AsyncClient(transport=made)
            if not isinstance(made, httpx.AsyncClient):
                said = f"transport=… must return an httpx.AsyncClient or httpx.AsyncBaseTransport, not {made!r}"
                raise ConnectError(said, retryable=False)
            self._client = made
        return self._client


def check_httpx(given: object) -> None:
    """Raise TypeError unless it is what HttpxTransport takes."""
    if not isinstance(given, (httpx.AsyncClient, httpx.AsyncBaseTransport)) and not callable(given):
        raise TypeError(
            "transport takes an httpx.AsyncClient, an httpx.AsyncBaseTransport or a callable that makes one, not "
            f"{type(given).__name__}"
        )


def _named(error: httpx.HTTPError, address: Address) -> TransportError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return connect_error(cause or error, address)
    if isinstance(error, (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)):
        return ConnectionLostError(f"connection to {address} was lost before the answer: {error}")
    if isinstance(error, (httpx.ProxyError, httpx.UnsupportedProtocol, httpx.CloseError)):
        return ConnectError(f"cannot connect to {address}: {error}")
    return ProtocolError(f"{address}: {error}")


class PooledTransport(httpx.AsyncBaseTransport):
    """Our own HTTP/1.1 connections as a transport for `httpx.AsyncClient(transport=PooledTransport())`.

    For requests and answers that fit in memory: the answer is bounded at 1 MiB. Timeouts are httpx's: the read timeout
    bounds the whole exchange. Not for HEAD and CONNECT, whose answers are framed otherwise. Used from one event loop.

    Args:
        connections: Connections at most, for each origin.
        tls: As the clients' option.
    """

    def __init__(self, *, connections: int = 8, tls: ssl.SSLContext | TLS | None = None) -> None:
        self._connections = connections
        self._tls = tls
        self._pools: dict[tuple[bytes, bytes, int | None], HTTPPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange; see httpx.AsyncBaseTransport."""
        body = await request.aread()
        raw = request.url.raw_scheme, request.url.raw_host, request.url.port
        timeouts = request.extensions.get("timeout", {})
        pool = self._pools.get(raw)
        if pool is None:
            pool = self._pools[raw] = HTTPPool(self._link(request.url), self._connections)
        message = b"\r\n".join([*_head_lines(request, len(body)), b"", body])
        try:
            answer = await pool.exchange(message, timeouts.get("read") or 3600.0, lambda answer: answer)
        except AckTimeoutError as error:
            raise httpx.ReadTimeout(str(error), request=request) from error
        except ConnectError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        except ProtocolError as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
        except TransportError as error:
            raise httpx.ReadError(str(error), request=request) from error
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body, request=request)

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        for pool in self._pools.values():
            pool.close()

    def _link(self, url: httpx.URL) -> Link:
        from raccoon_fast.logs import resolve_logger
        from raccoon_fast.stats import resolve_stats

        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"PooledTransport speaks http and https, not {url.scheme!r}")
        secure = url.scheme == "https"
        return Link(
            address=Address(url.scheme, url.raw_host.decode("ascii"), url.port or (443 if secure else 80), "", secure),
            identity=Identity(),
            headers={},
            authorization=None,
            tls=self._tls,
            user_agent="",
            connect_timeout_s=10.0,
            stats=resolve_stats(None),
            logger=resolve_logger(None),
        )


def _head_lines(request: httpx.Request, length: int) -> list[bytes]:
    if request.method in ("HEAD", "CONNECT"):
        raise httpx.LocalProtocolError(f"PooledTransport has no {request.method}", request=request)
    # The body is here as a whole, so its length is known even where httpx meant to send it in chunks.
    framing = (b"content-length", b"transfer-encoding")
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % (name, value) for name, value in request.headers.raw if name.lower() not in framing]
    lines += [b"Content-Length: %d" % length]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise httpx.LocalProtocolError("a header must not hold a line break", request=request)  # httpx lets it pass
    return lines
