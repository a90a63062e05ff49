"""First writes on a connection whose server refuses our certificate; in TLS 1.3 it does so after the handshake.

The server may reset the connection after its alert. A write that fails because of that ends the connection on every
event loop, before the alert is read. So the first request is written together with the end of the handshake.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from raccoon_fast.errors import ConnectError, Outcome, TLSError
from raccoon_fast.logs import resolve_logger
from raccoon_fast.net.address import parse_address
from raccoon_fast.transports.base import Identity, Link, Request
from raccoon_fast.transports.pinger import Keepalive
from raccoon_fast.transports.rest.connection import HTTPConnection
from raccoon_fast.transports.rest.pool import HTTPPool
from raccoon_fast.transports.websocket.connection import WebSocketConnection


class Figures:
    def timing(self, name: str, ms: float) -> None:
        raise AssertionError("a transport times nothing")

    def count(self, name: str, n: int) -> None:
        pass


class TlsTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 1 << 16

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))


def link(scheme: str, kind: str) -> Link:
    return Link(
        address=parse_address(f"{scheme}://127.0.0.1:9", kind),
        identity=Identity(),
        headers={},
        authorization=None,
        tls=None,
        user_agent="tests",
        connect_timeout_s=10.0,
        stats=Figures(),
        logger=resolve_logger(None),
    )


def alert() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    return error


def test_a_refused_certificate_ends_the_websocket_handshake() -> None:
    async def made() -> TlsTransport:
        transport = TlsTransport()
        connection = WebSocketConnection(link("wss", "WebSocket"), Keepalive(None, 10.0), 8, {"X-User-ID": "me"})
        connection.connection_made(transport)  # type: ignore[arg-type]
        waiting = asyncio.ensure_future(connection.open(10.0))
        await asyncio.sleep(0)
        connection.connection_lost(alert())
        with pytest.raises(TLSError, match="refused the client's certificate"):
            await waiting
        return transport

    (request,) = asyncio.run(made()).written
    assert request.startswith(b"GET /")
    assert b"X-User-ID: me\r\n" in request


def test_a_refused_certificate_ends_the_first_rest_request() -> None:
    transport: Any = TlsTransport()
    outcomes: list[Any] = []

    async def exchange() -> None:
        deadline_s = asyncio.get_running_loop().time() + 10
        connection = HTTPConnection(
            link("https", "REST"), lambda made: made.begin(b"POST", deadline_s, outcomes.append)
        )
        connection.connection_made(transport)
        assert transport.written == [b"POST"]
        connection.connection_lost(alert())

    asyncio.run(exchange())
    (error,) = outcomes
    assert isinstance(error, TLSError)
    assert error.outcome is Outcome.NOT_DELIVERED


async def opened(monkeypatch: pytest.MonkeyPatch, after: Callable[[], None], **lost: Any) -> BaseException | None:
    """Run an exchange. As soon as its connection is made, call `after`. Returns the error it ends with."""
    request = Request("guid", None, "proto", 4)  # type: ignore[arg-type]

    async def open_tcp(_: Link, factory: Callable[[], HTTPConnection], timeout_s: float) -> HTTPConnection:
        connection = factory()
        connection.connection_made(TlsTransport())  # type: ignore[arg-type]
        assert request.was_written
        if lost:
            connection.connection_lost(lost["error"])
        after()
        return connection

    monkeypatch.setattr("raccoon_fast.transports.rest.pool.open_tcp", open_tcp)
    pool = HTTPPool(link("https", "REST"), 1)
    (error,) = await asyncio.gather(pool.exchange(b"POST", 10.0, lambda answer: None, request), return_exceptions=True)
    assert pool._free == 1
    return error


def fail(error: BaseException) -> Callable[[], None]:
    def raised() -> None:
        raise error

    return raised


def test_a_request_that_was_written_as_opening_failed_is_possibly_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    error = asyncio.run(opened(monkeypatch, fail(ConnectError("not in time"))))
    assert isinstance(error, ConnectError)
    assert error.outcome is Outcome.POSSIBLY_DELIVERED


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_connection_that_ends_as_it_opens_ends_its_request(monkeypatch: pytest.MonkeyPatch, is_seen: bool) -> None:
    # A future with an exception that nobody asked for would be logged, which fails a test.
    after = (lambda: None) if is_seen else fail(ConnectError("not in time"))
    error = asyncio.run(opened(monkeypatch, after, error=alert()))
    assert type(error) is (TLSError if is_seen else ConnectError)
