"""Binds listening sockets, and resets connections."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct

__all__ = ["LINGER_ZERO", "bind", "bind_when_free", "is_loopback", "reset", "url_host"]

#: A value of SO_LINGER (on, 0 s) that turns a close into a reset. Its fields are short on Windows.
LINGER_ZERO = struct.pack("ii" if os.name == "posix" else "hh", 1, 0)

_REBIND_S = 5.0
_REBIND_POLL_S = 0.005


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: the OS picks one). It does not listen yet, so connections are refused.

    Raises:
        OSError: The host is unknown, or the port is taken.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Otherwise the port stays in use while old connections are in TIME_WAIT. On Windows the option would let
            # other programs take over the port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from error
    return bound


async def bind_when_free(host: str, port: int) -> socket.socket:
    """Like `bind`, but waits for the previous owner of the port to release it.

    Raises:
        OSError: The port was not released within seconds.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _REBIND_S
    while True:
        try:
            return bind(host, port)
        except OSError:
            if loop.time() > deadline_s:
                raise
        await asyncio.sleep(_REBIND_POLL_S)


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST instead of FIN, discarding unsent data."""
    raw = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError):  # the connection or its transport has already ended
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    transport.abort()


def is_loopback(address: str) -> bool:
    """Whether an IP address is reachable from this machine only."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_host(host: str) -> str:
    """The host that a client on this machine connects to, in URL form."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host
