"""Opening a TCP connection, with TLS where the address asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import weakref
from typing import TYPE_CHECKING, TypeVar

from raccoon_fast import forks
from raccoon_fast.stats import TOTAL_CONN_ERR
from raccoon_fast.transports.base import connect_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.transports.base import Link

__all__ = ["open_tcp"]

_P = TypeVar("_P", bound=asyncio.Protocol)

# Keepalive finds a dead peer on an idle connection in 15 + 3 x 5 s; it never fires while data is in flight, which is
# what TCP_USER_TIMEOUT (RFC 5482) bounds: without it the kernel keeps trying for about a quarter of an hour.
# (TCP_NODELAY is on already: asyncio and uvloop see to it.)
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}


async def open_tcp(link: Link, factory: Callable[[], _P], timeout_s: float) -> _P:
    """Connect to `link.address`.

    Args:
        link: Address, TLS and the connect timeout.
        factory: Makes the protocol.
        timeout_s: Seconds for look-up, connect and TLS handshake together; `link.connect_timeout_s` is a bound too.

    Returns:
        The connected protocol.

    Raises:
        TLSError: Certificates or TLS itself are at fault; a retry does not help.
        ConnectError: Any other failure. Both are counted as total_conn_err.
    """
    address = link.address
    loop = asyncio.get_running_loop()
    try:
        context = link.ssl_context()
        transport, protocol = await asyncio.wait_for(
            loop.create_connection(
                factory,
                address.host,
                address.port,
                ssl=context,
                server_hostname=address.host if context is not None else None,
            ),
            min(timeout_s, link.connect_timeout_s),
        )
    except (OSError, asyncio.TimeoutError) as error:
        link.stats.count(TOTAL_CONN_ERR, 1)
        raise connect_error(error, address) from error
    with contextlib.suppress(OSError):  # the connection may have ended already: whoever uses it will see why
        sock = transport.get_extra_info("socket")
        if sock is not None:  # it has ended
            _tune(sock)
            _opened[protocol] = (sock.fileno(), os.fstat(sock.fileno()).st_ino)
    return protocol


# Descriptor and inode of each connection, by protocol.
_opened: weakref.WeakKeyDictionary[asyncio.Protocol, tuple[int, int]] = weakref.WeakKeyDictionary()


def _let_go_in_child() -> None:
    """Close the child's copies of the parent's sockets, or a server would not see the end of the parent.

    The numbers stay taken, by /dev/null, for the objects of the parent's loop to close; and nothing is told to that
    loop, whose epoll instance is the parent's too.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for number, inode in [*_opened.values()]:
        with contextlib.suppress(OSError):
            if os.fstat(number).st_ino == inode:
                os.dup2(null, number, inheritable=False)
    os.close(null)
    _opened.clear()


if sys.platform != "win32":
    forks.in_child(_let_go_in_child)


def _tune(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)  # not every platform has all of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
