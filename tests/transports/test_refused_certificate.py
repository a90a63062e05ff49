"""Writes while a server's refusal of our certificate is under way; in TLS 1.3 that is after the handshake.

The server may reset the connection after its alert. A write that fails because of that ends the connection on every
event loop, before the alert is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from patience import wait_until

from raccoon_fast.collector.sockets import LINGER_ZERO
from raccoon_fast.errors import Outcome, TLSError
from raccoon_fast.logs import resolve_logger
from raccoon_fast.net.address import parse_address
from raccoon_fast.net.tls import is_ended_tls
from raccoon_fast.transports.base import Identity, Link
from raccoon_fast.transports.pinger import Keepalive
from raccoon_fast.transports.rest.connection import HTTPConnection
from raccoon_fast.transports.websocket.connection import WebSocketConnection


class Figures:
    def timing(self, name: str, ms: float) -> None:
        raise AssertionError("a transport times nothing")

    def count(self, name: str, n: int) -> None:
        pass


class TlsTransport:
    """Keeps what is written."""

    def __init__(self, sock: socket.socket | None) -> None:
        self.extra = {"socket": sock, "ssl_object": object()}
        self.written: list[bytes] = []

    def get_extra_info(self, name: str) -> object:
        return self.extra[name]

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


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        peer, _ = listener.accept()
        with peer:
            yield ours, peer


def alert() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    return error


def test_a_refused_certificate_ends_the_websocket_handshake() -> None:
    async def made() -> TlsTransport:
        transport = TlsTransport(None)
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


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the system does not tell a connection's state")
@pytest.mark.parametrize("is_reset", [True, False])
def test_nothing_is_written_where_the_server_has_ended_the_connection(sockets: Any, is_reset: bool) -> None:
    ours, peer = sockets
    transport: Any = TlsTransport(ours)
    assert not is_ended_tls(transport)
    outcomes: list[Any] = []

    async def exchange() -> None:
        connection = HTTPConnection(link("https", "REST"))
        connection.connection_made(transport)
        if is_reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        peer.close()
        wait_until(lambda: is_ended_tls(transport))
        connection.begin(b"POST", asyncio.get_running_loop().time() + 10, outcomes.append)
        connection.connection_lost(alert())

    asyncio.run(exchange())
    assert transport.written == []
    (error,) = outcomes
    assert isinstance(error, TLSError)
    assert error.outcome is Outcome.NOT_DELIVERED


def test_open_or_plain_connections_are_written_to(sockets: Any) -> None:
    ours, peer = sockets
    transport: Any = TlsTransport(ours)

    async def begin() -> None:
        connection = HTTPConnection(link("https", "REST"))
        connection.connection_made(transport)
        connection.begin(b"POST", asyncio.get_running_loop().time() + 10, lambda outcome: None)
        connection.connection_lost(None)

    asyncio.run(begin())
    assert transport.written == [b"POST"]
    peer.close()
    with contextlib.closing(ours):
        transport.extra["ssl_object"] = None
        assert not is_ended_tls(transport)
    transport.extra["ssl_object"] = object()
    assert not is_ended_tls(transport)  # our own end is closed
