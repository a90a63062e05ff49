"""Opens sockets to a server as clients do: same order of addresses, same proxy, same Unix socket."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from raccoon_fast.net.tcp import connect, open_tcp

if TYPE_CHECKING:
    from raccoon_fast.transports.base import Link

__all__ = ["open_secure", "open_socket"]


def open_socket(link: Link, timeout_s: float) -> socket.socket:
    """Returns a connected socket without TLS; it keeps the same timeout.

    Raises:
        OSError: The server cannot be reached; a ConnectError if a proxy refused.
    """
    address = link.address
    if address.unix_path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            sock.connect(address.unix_path)
        except BaseException:
            sock.close()
            raise
        return sock
    if link.proxy is None:
        try:
            sock = asyncio.run(connect(link, timeout_s))
        except asyncio.TimeoutError:  # not an OSError before Python 3.11
            raise TimeoutError("timed out") from None
    else:
        sock = _tunnel(link, timeout_s)
    sock.settimeout(timeout_s)
    return sock


def open_secure(link: Link, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    """Returns a connected socket after the TLS handshake.

    Raises:
        OSError: As for `open_socket`, and ssl.SSLError.
    """
    plain = open_socket(link, timeout_s)
    try:
        return context.wrap_socket(plain, server_hostname=link.server_hostname or link.address.server_name)
    except BaseException:
        plain.close()
        raise


def _tunnel(link: Link, timeout_s: float) -> socket.socket:
    """One end of a socket pair; a thread forwards its data to the server and back while it is open."""
    ours, theirs = socket.socketpair()
    opened: concurrent.futures.Future[None] = concurrent.futures.Future()
    threading.Thread(target=lambda: asyncio.run(_carry(link, theirs, timeout_s, opened)), daemon=True).start()
    try:
        opened.result()
    except BaseException:
        ours.close()
        raise
    return ours


async def _carry(link: Link, sock: socket.socket, timeout_s: float, opened: concurrent.futures.Future[None]) -> None:
    try:
        # The holder of the other end does TLS with the server.
        plain = dataclasses.replace(link, address=link.address._replace(secure=False))
        far = await open_tcp(plain, _Carrier, timeout_s)
        _, near = await asyncio.get_running_loop().create_connection(_Carrier, sock=sock)
    except BaseException as error:  # noqa: BLE001 - raised where it is awaited
        sock.close()
        opened.set_exception(error)
        return
    far.join(near)
    near.join(far)
    opened.set_result(None)
    await asyncio.wait([far.lost, near.lost])


class _Carrier(asyncio.Protocol):
    """Forwards incoming data to the connection that it is joined with."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._early = bytearray()
        self._to: asyncio.Transport | None = None

    def join(self, other: _Carrier) -> None:
        self._to = other.transport
        assert self._to is not None
        if self._early:
            self._to.write(self._early)
        if self.lost.done():
            self._to.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._to is None:
            self._early += data
        else:
            self._to.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)
        if self._to is not None:
            with contextlib.suppress(OSError):
                self._to.close()

    def move_on(self) -> None:
        """It never does."""
