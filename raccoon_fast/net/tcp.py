"""Opening a TCP connection, with TLS where the address asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, TypeVar

from raccoon_fast.errors import ConnectError, TLSError, TransportError
from raccoon_fast.net.tls import refused_certificate, refuses_certificate
from raccoon_fast.stats import TOTAL_CONN_ERR

if TYPE_CHECKING:
    from collections.abc import Callable

    from raccoon_fast.net.address import Address
    from raccoon_fast.transports.base import Link

__all__ = ["connect_error", "open_tcp"]

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
        _tune(transport.get_extra_info("socket"))
    return protocol


def connect_error(error: BaseException, address: Address) -> TransportError:
    """Name a failure to connect: TLSError where the certificates are at fault, ConnectError otherwise."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError(f"cannot trust {address}: {error.verify_message or error}")
    if refuses_certificate(error):
        return refused_certificate(error, address)
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        asks = "ALERT_HANDSHAKE_FAILURE" in (error.reason or "")  # TLS 1.2, for one that sends no certificate
        hint = "does it ask for a client certificate?" if asks else "is this a TLS port?"
        return TLSError(f"TLS with {address} failed: {error.reason or error}; {hint}")
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return ConnectError(f"cannot connect to {address}: timed out")
    if isinstance(error, socket.gaierror):
        return ConnectError(f"cannot resolve {address.host}: {error.strerror or error}")
    return ConnectError(f"cannot connect to {address}: {error or type(error).__name__}")


def _tune(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)  # not every platform has all of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
