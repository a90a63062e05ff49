"""Opening a connection: the socket's options, and the errors for failures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys

import pytest
import trustme
from scripted import tcp_server

from raccoon_fast.errors import ConnectError, TLSError
from raccoon_fast.logs import resolve_logger
from raccoon_fast.net.address import parse_address
from raccoon_fast.net.tcp import open_tcp
from raccoon_fast.transports.base import Identity, Link


class Figures:
    def __init__(self) -> None:
        self.counts: list[tuple[str, int]] = []

    def timing(self, name: str, ms: float) -> None:
        raise AssertionError("nothing was sent")

    def count(self, name: str, n: int) -> None:
        self.counts.append((name, n))


class Peer(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def link(url: str, tls: ssl.SSLContext | None = None, connect_timeout_s: float = 10.0) -> Link:
    return Link(
        address=parse_address(url, "REST"),
        identity=Identity(),
        headers={},
        authorization=None,
        tls=tls,
        user_agent="",
        connect_timeout_s=connect_timeout_s,
        stats=Figures(),
        logger=resolve_logger(None),
    )


def test_a_connection_finds_a_dead_peer(run) -> None:
    async def main(host: str) -> list[int]:
        peer = await open_tcp(link(f"http://{host}"), Peer, 5.0)
        sock = peer.transport.get_extra_info("socket")
        names = ["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"]
        set_ = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names if hasattr(socket, name)]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        peer.transport.abort()
        await peer.lost
        return set_

    with tcp_server(lambda connection: connection.wait_closed()) as host:
        options = run(main(host))
    if sys.platform == "linux":
        assert options == [15, 5, 3, 30_000]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "cannot connect to http://127.0.0.1:1/api/v1/events"),
        ("http://nobody.invalid", "cannot resolve nobody.invalid"),
    ],
)
def test_a_failure_is_named_and_counted(run, url: str, said: str) -> None:
    to = link(url)
    with pytest.raises(ConnectError, match=said) as caught:
        run(open_tcp(to, Peer, 10.0))
    assert not isinstance(caught.value, TLSError)
    assert isinstance(caught.value.__cause__, OSError)
    assert to.stats.counts == [("total_conn_err", 1)]


@pytest.mark.parametrize("bound", ["attempt", "connect"])
def test_the_shorter_timeout_counts(run, bound: str) -> None:
    """The timeout includes the TLS handshake."""
    with tcp_server(lambda connection: connection.wait_closed()) as host:
        to = link(f"https://{host}", connect_timeout_s=0.1 if bound == "connect" else 600.0)
        with pytest.raises(ConnectError, match="timed out"):
            run(open_tcp(to, Peer, 0.1 if bound == "attempt" else 600.0))
    assert to.stats.counts == [("total_conn_err", 1)]


def test_an_untrusted_certificate(run) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def script(connection):
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection.sock, server_side=True) as secured:
            secured.recv(1)

    with tcp_server(script) as host:
        to = link(f"https://{host}")
        with pytest.raises(TLSError, match=f"cannot trust https://{host}"):
            run(open_tcp(to, Peer, 10.0))
    assert to.stats.counts == [("total_conn_err", 1)]


def test_plain_text_where_tls_was_asked_for(run) -> None:
    def script(connection):
        connection.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.wait_closed()

    with tcp_server(script) as host, pytest.raises(TLSError, match="is this a TLS port"):
        run(open_tcp(link(f"https://{host}"), Peer, 10.0))


def test_a_connection_that_ended_early_is_not_a_connect_error(run) -> None:
    """The user sees why it ended and can distinguish it from a missing server."""

    class Leaving(Peer):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            transport.abort()

    async def main(host: str) -> None:
        # What asyncio has run before `create_connection` returns differs from loop to loop.
        for _ in range(20):
            await (await open_tcp(link(f"http://{host}"), Leaving, 5.0)).lost

    with tcp_server(lambda connection: connection.wait_closed()) as host:
        run(main(host))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_cancelled_connect_leaves_no_connection(run, scheme: str) -> None:
    """It is cancelled after each possible number of steps; the server sees every connection end."""
    began: list[tuple[str, int]] = []
    ended: list[tuple[str, int]] = []

    def script(connection):
        peer = connection.sock.getpeername()
        began.append(peer)
        connection.wait_closed()
        ended.append(peer)

    async def main(host: str) -> None:
        for steps in range(12):
            opening = asyncio.ensure_future(open_tcp(link(f"{scheme}://{host}"), Peer, 5.0))
            for _ in range(steps):
                await asyncio.sleep(0)
            if opening.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await opening
            else:
                opening.result().transport.abort()
        # The last one is not cancelled, and is accepted after all others.
        peer = await open_tcp(link(f"http://{host}"), Peer, 5.0)
        last = peer.transport.get_extra_info("sockname")
        deadline_s = asyncio.get_running_loop().time() + 5.0
        while last not in began or len(ended) < len(began) - 1:
            assert asyncio.get_running_loop().time() < deadline_s, (began, ended)
            await asyncio.sleep(0.01)
        peer.transport.abort()
        await peer.lost

    with tcp_server(script) as host:
        run(main(host))
