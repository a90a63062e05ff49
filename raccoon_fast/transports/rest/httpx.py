"""Connects this package with httpx, in both directions.

`HttpxTransport` sends through a user's `httpx.AsyncClient` or `httpx.AsyncBaseTransport` (proxies, HTTP/2, custom
authentication, mocks). `PooledTransport` offers our own connections to an `httpx.AsyncClient` of the user's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

from raccoon_fast.errors import (
    AckTimeoutError,
    ConnectError,
    ConnectionLostError,
    Outcome,
    ProtocolError,
    RaccoonError,
    TransportError,
)
from raccoon_fast.net.address import Address
from raccoon_fast.net.tcp import connect_error
from raccoon_fast.stats import TOTAL_BYTES_RECIEVED, TOTAL_BYTES_SENT, TOTAL_CONN_ERR
from raccoon_fast.timeouts import timeout
from raccoon_fast.transports.base import MAX_ANSWER_BYTES, Identity, Link, Transport, lost_error
from raccoon_fast.transports.http_answers import CONTENT_TYPES, read_answer
from raccoon_fast.transports.rest.pool import HTTPPool

if TYPE_CHECKING:
    import ssl

    from raccoon_fast.events import Response
    from raccoon_fast.tls import TLS
    from raccoon_fast.transports.base import Request

__all__ = ["HttpxGiven", "HttpxTransport", "PooledTransport", "check_httpx"]

#: The types that a user may pass.
HttpxGiven = httpx.AsyncClient | httpx.AsyncBaseTransport | Callable[[], httpx.AsyncClient | httpx.AsyncBaseTransport]


class HttpxTransport(Transport):
    """POSTs to `/api/v1/events` through httpx.

    httpx does not report an answer that arrives before the request's body was read: such a 400 becomes a
    ConnectionLostError. It also does not report whether a failed request was written, except if it could not connect.

    Args:
        link: The server; http or https. Its `tls` is ignored: httpx's own settings apply.
        http: The user's object; or a callable that creates it, called on the event loop of the first request, so once
            per process. The user closes an AsyncClient that they passed; everything else is closed with this transport.
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
        headers = {**link.request_headers(), "Content-Type": CONTENT_TYPES[request.wire], **(request.headers or {})}
        request.written_s = time.monotonic()
        request.was_written = True
        try:
            async with timeout(timeout_s):
                return await self._post(request, headers, timeout_s)
        except RaccoonError:
            raise  # some of these are OSErrors too
        except (asyncio.TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            raise AckTimeoutError(f"no answer from {address} within {timeout_s:g} s") from None
        except (httpx.HTTPError, OSError) as error:  # a TLS 1.3 alert is raised as ssl.SSLError
            link.stats.count(TOTAL_CONN_ERR, 1)
            request.was_written = not isinstance(error, _UNWRITTEN)
            raise _named(error, address) from error

    async def _post(self, request: Request, headers: dict[str, str], timeout_s: float) -> Response:
        link = self._link
        body = bytes(request.envelope.payload())
        link.stats.count(TOTAL_BYTES_SENT, len(body))
        # The connect timeout ends before the whole timeout, so that the error can say that nothing was written.
        limits = httpx.Timeout(timeout_s, connect=min(link.connect_timeout_s, timeout_s * 0.9), pool=timeout_s * 0.9)
        async with self._http().stream(
            "POST", link.address.uri, content=body, headers=headers, timeout=limits, follow_redirects=False
        ) as answer:
            length = answer.headers.get("content-length")
            parts, size = [], 0
            async for part in answer.aiter_bytes():
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise ProtocolError(f"{link.address} answered with over {MAX_ANSWER_BYTES} bytes")
                parts.append(part)
                if str(size) == length:
                    # An answer to another request raises here, before httpx has read to its end, so httpx does not keep
                    # the connection.
                    self._read(request, answer, b"".join(parts))
            link.stats.count(TOTAL_BYTES_RECIEVED, size)
            return self._read(request, answer, b"".join(parts))

    def _read(self, request: Request, answer: httpx.Response, body: bytes) -> Response:
        return read_answer(
            answer.status_code,
            body,
            lambda name: answer.headers.get(name, ""),
            wire=request.wire,
            req_guid=request.req_guid,
            address=self._link.address,
            words=self._link.words,
        )

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
    """Raise TypeError if HttpxTransport does not accept it."""
    if not isinstance(given, (httpx.AsyncClient, httpx.AsyncBaseTransport)) and not callable(given):
        raise TypeError(
            "transport takes an httpx.AsyncClient, an httpx.AsyncBaseTransport or a callable that makes one, not "
            f"{type(given).__name__}"
        )


# Failures of httpx before the first byte of a request.
_UNWRITTEN = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
)  # fmt: skip


def _named(error: httpx.HTTPError | OSError, address: Address) -> TransportError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return connect_error(cause or error, address)
    if isinstance(error, _UNWRITTEN):
        return ConnectError(f"cannot connect to {address}: {error or type(error).__name__}")
    if isinstance(error, (httpx.NetworkError, OSError)):
        return lost_error(cause or error, address, is_silent=True)
    if isinstance(error, httpx.RemoteProtocolError):
        return ConnectionLostError(f"connection to {address} was lost before the answer: {error}")
    return ProtocolError(f"{address}: {error}")


class PooledTransport(httpx.AsyncBaseTransport):
    """The built-in HTTP/1.1 connections as a transport for `httpx.AsyncClient(transport=PooledTransport())`.

    For requests and answers that fit in memory: an answer may have at most 1 MiB. Timeouts are httpx's: the read
    timeout limits the whole exchange. Not for HEAD and CONNECT, whose answers are framed differently. For one event
    loop.

    Args:
        connections: The largest number of connections per origin.
        tls: As the option of clients.
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
            # If the request was written before to a kept connection, httpx must not treat it as unsent.
            is_unsent = error.outcome is Outcome.NOT_DELIVERED
            raise (httpx.ConnectError if is_unsent else httpx.ReadError)(str(error), request=request) from error
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
    # The whole body is in memory, so its length is known even if httpx was going to send it in chunks.
    framing = (b"content-length", b"transfer-encoding")
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % (name, value) for name, value in request.headers.raw if name.lower() not in framing]
    lines += [b"Content-Length: %d" % length]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise httpx.LocalProtocolError("a header must not hold a line break", request=request)  # httpx accepts it
    return lines
