"""Opening a connection to an address: look-up, TCP or a Unix socket, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from aiohappyeyeballs import start_connection

from raccoon_fast import forks
from raccoon_fast.errors import ConnectError, TLSError, TransportError
from raccoon_fast.net import resolver
from raccoon_fast.net.proxy import connect_socks, hand_on, open_tunnel
from raccoon_fast.net.tls import refused_certificate, refuses_certificate
from raccoon_fast.stats import TOTAL_CONN_ERR
from raccoon_fast.threads import is_green

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raccoon_fast.net.address import Address
    from raccoon_fast.net.proxy import Proxy
    from raccoon_fast.net.resolver import AddrInfo
    from raccoon_fast.net.spread import Spread
    from raccoon_fast.stats import MetricsSink
    from raccoon_fast.tls import TLS

__all__ = ["Route", "connect", "connect_error", "open_tcp"]

_P = TypeVar("_P", bound=asyncio.Protocol)

# Keepalive finds a dead peer on an idle connection in 15 + 3 x 5 s; it never fires while data is in flight, which is
# what TCP_USER_TIMEOUT (RFC 5482) bounds: without it the kernel keeps trying for about a quarter of an hour.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
# RFC 8305, 5: the wait for one address before the next one is tried as well.
_ATTEMPT_DELAY_S = 0.25


class Route(Protocol):
    """What is known of a server and the way to it; raccoon_fast.transports.base.Link is one."""

    address: Address
    proxy: Proxy | None
    tls: ssl.SSLContext | TLS | None
    server_hostname: str | None
    connect_timeout_s: float
    stats: MetricsSink
    spread: Spread

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain text."""


async def open_tcp(route: Route, factory: Callable[[], _P], timeout_s: float) -> _P:
    """Connect to `route.address`.

    A name's addresses are tried one after the other, a quarter of a second apart and without giving up those before
    (RFC 8305), so an address that is dead costs no more than that.

    Args:
        route: Address, TLS and the connect timeout.
        factory: Makes the protocol, which keeps its `transport` and has a method `move_on` (see Spread).
        timeout_s: Seconds for look-up, connect and TLS handshake together; `route.connect_timeout_s` is a bound too.

    Returns:
        The connected protocol.

    Raises:
        TLSError: Certificates or TLS itself are at fault; a retry does not help.
        ConnectError: Any other failure. Both are counted as total_conn_err.
    """
    timeout_s = min(timeout_s, route.connect_timeout_s)
    tried: list[str] = []
    try:
        return await asyncio.wait_for(_open(route, factory, timeout_s, tried), timeout_s)
    except (OSError, asyncio.TimeoutError) as error:
        route.stats.count(TOTAL_CONN_ERR, 1)
        if isinstance(error, ConnectError):
            raise
        raise connect_error(error, route.address, tried, route.proxy) from error


async def connect(route: Route, timeout_s: float) -> socket.socket:
    """A connected socket to the server, without TLS and without a proxy; it does not block.

    Raises:
        OSError: No address takes a connection.
    """
    address = route.address
    found = route.spread.order(await resolver.look_up(address.host, address.port))
    return (await _connect(found, route.spread, timeout_s))[0]


async def _open(route: Route, factory: Callable[[], _P], timeout_s: float, tried: list[str]) -> _P:
    loop = asyncio.get_running_loop()
    address, proxy, spread = route.address, route.proxy, route.spread
    context = route.ssl_context()
    if address.unix_path:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this platform has no Unix sockets")
        return (await loop.create_unix_connection(factory, address.unix_path))[1]
    name = (address.host, address.port) if proxy is None else (proxy.host, proxy.port)
    found = spread.order(await resolver.look_up(*name))
    tried += (info[4][0] for info in found)
    with spread.reserved(tried[0]):
        sock, host = await _connect(found, spread, timeout_s)
        try:
            transport, protocol = await _use(route, sock, factory, context)
        except BaseException:
            spread.failed([host])
            raise
        with contextlib.suppress(OSError):  # the connection may have ended already: whoever uses it will see why
            sock = transport.get_extra_info("socket")
            _tune(sock)
            if sock is not None:
                _opened[protocol] = (sock.fileno(), os.fstat(sock.fileno()).st_ino)
        spread.opened(protocol, host, name, len(found))
    return protocol


async def _connect(found: list[AddrInfo], spread: Spread, timeout_s: float) -> tuple[socket.socket, str]:
    """A connected socket, and the address that it goes to."""
    loop = asyncio.get_running_loop()
    sock = await start_connection(
        found,
        # Each gets its share of a short timeout.
        happy_eyeballs_delay=min(_ATTEMPT_DELAY_S, timeout_s / (len(found) + 1)),
        interleave=0,
        socket_factory=_new_socket,
        loop=loop if isinstance(loop, asyncio.BaseEventLoop) else cast("asyncio.AbstractEventLoop", _Sockets(loop)),
    )
    hosts = [info[4][0] for info in found]
    winner = hosts[0]
    if len(hosts) > 1:
        winner = sock.getpeername()[0]
        spread.failed(hosts[: hosts.index(winner)] if winner in hosts else ())
    return sock, winner


async def _use(
    route: Route, sock: socket.socket, factory: Callable[[], _P], context: ssl.SSLContext | None
) -> tuple[asyncio.Transport | asyncio.WriteTransport, _P]:
    """From a connected socket to the protocol, through the proxy if there is one. The socket is used up."""
    loop = asyncio.get_running_loop()
    address, proxy = route.address, route.proxy
    server_hostname = None if context is None else route.server_hostname or address.server_name
    try:
        if proxy is not None and proxy.scheme in ("http", "https"):
            transport, tunnel = await open_tunnel(loop, sock, proxy, address, route.tls)
            return await hand_on(loop, transport, tunnel, factory, context, server_hostname)
        if proxy is not None:
            await connect_socks(sock, proxy, address)
        return await loop.create_connection(factory, sock=sock, ssl=context, server_hostname=server_hostname)
    finally:
        if not isinstance(loop, asyncio.BaseEventLoop):
            # uvloop's transport closes the descriptor, and forgets its owner where it ends early.
            sock.detach()


class _Sockets:
    """What start_connection uses of a loop, for uvloop.

    Its own sock_connect has libuv's threads look up the address that is given, which loses an IPv6 zone, and those
    threads bring down a forked child at its exit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def sock_connect(self, sock: socket.socket, sockaddr: Any) -> None:
        """Connect a socket that does not block."""
        try:
            sock.connect(sockaddr)
        except (BlockingIOError, InterruptedError):
            pass
        else:
            return
        connected = self._loop.create_future()
        self._loop.add_writer(sock.fileno(), _set_done, connected)
        try:
            await connected
        finally:
            self._loop.remove_writer(sock.fileno())
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _new_socket(info: AddrInfo) -> socket.socket:
    if is_green():
        from gevent.monkey import get_original

        made: socket.socket = get_original("socket", "socket")(*info[:3])
        return made
    return socket.socket(*info[:3])


def connect_error(
    error: BaseException, address: Address, tried: Sequence[str] = (), proxy: Proxy | None = None
) -> TransportError:
    """Name a failure to connect: TLSError where the certificates are at fault, ConnectError otherwise.

    Args:
        error: The failure.
        address: Where to.
        tried: The IP addresses that were tried, of the proxy if there is one; named where there are several.
        proxy: The proxy in between.
    """
    way = str(address) if proxy is None else f"{address} through the proxy {proxy}"
    several = f" (tried {', '.join(tried)})" if len(tried) > 1 else ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError(f"cannot trust {address}: {error.verify_message or error}")
    if refuses_certificate(error):
        return refused_certificate(error, address)
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        reason = getattr(error, "reason", None)  # OpenSSL's own
        if not reason:
            return TLSError(f"TLS with {address} failed: {error}")
        asks = "ALERT_HANDSHAKE_FAILURE" in reason  # TLS 1.2, for one that sends no certificate
        hint = "does it ask for a client certificate?" if asks else "is this a TLS port?"
        return TLSError(f"TLS with {address} failed: {reason}; {hint}")
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return ConnectError(f"cannot connect to {way}: timed out{several}")
    if isinstance(error, socket.gaierror):
        return ConnectError(f"cannot resolve {(proxy or address).host}: {error.strerror or error}")
    return ConnectError(f"cannot connect to {way}: {error or type(error).__name__}{several}")


# Descriptor and inode of each connection, by protocol.
_opened: weakref.WeakKeyDictionary[asyncio.BaseProtocol, tuple[int, int]] = weakref.WeakKeyDictionary()


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


def _tune(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)  # not every platform has all of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
