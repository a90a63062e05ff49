"""Opens connections: resolves the name, connects over TCP or a Unix socket, negotiates TLS."""

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
from raccoon_fast.timeouts import timeout

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

# Keepalive finds a dead peer on an idle connection within 15 + 3 x 5 s. It never fires while data is in flight; that
# case needs TCP_USER_TIMEOUT (RFC 5482), without which the kernel keeps trying for about 15 minutes.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
# RFC 8305, 5: the wait before the next address is tried in parallel.
_ATTEMPT_DELAY_S = 0.25


class Route(Protocol):
    """The address of a server and the way to it, such as raccoon_fast.transports.base.Link."""

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

    The addresses of a name are tried 0.25 s apart, while earlier attempts continue
    (RFC 8305), so a dead address delays the connection by only 0.25 s.

    Args:
        route: Address, TLS and the connect timeout.
        factory: Makes the protocol, which stores its `transport` and has a method `move_on` (see Spread).
        timeout_s: Seconds for lookup, connect and TLS handshake together; `route.connect_timeout_s` is a limit too.

    Returns:
        The connected protocol.

    Raises:
        TLSError: A certificate or TLS itself failed; a retry does not help.
        ConnectError: Any other failure. Both are counted as total_conn_err.
    """
    timeout_s = min(timeout_s, route.connect_timeout_s)
    tried: list[str] = []
    try:
        async with timeout(timeout_s):
            return await _open(route, factory, timeout_s, tried)
    except (OSError, asyncio.TimeoutError) as error:
        route.stats.count(TOTAL_CONN_ERR, 1)
        if isinstance(error, ConnectError):
            raise
        raise connect_error(error, route.address, tried, route.proxy) from error


async def connect(route: Route, timeout_s: float) -> socket.socket:
    """A connected, non-blocking socket to the server, without TLS and proxy.

    Raises:
        OSError: No address accepts a connection.
        asyncio.TimeoutError: There is none within `timeout_s`.
    """
    address = route.address
    async with timeout(timeout_s):
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
            with contextlib.suppress(OSError):  # the connection may have ended already: its user will see why
                _tune(sock)
            transport, protocol = await _use(route, sock, factory, context)
        except BaseException:
            spread.failed([host])
            raise
        with contextlib.suppress(OSError):
            opened = transport.get_extra_info("socket")
            if opened is not None:
                _opened[protocol] = (opened.fileno(), os.fstat(opened.fileno()).st_ino)
        spread.opened(protocol, host, name, len(found))
    return protocol


async def _connect(found: list[AddrInfo], spread: Spread, timeout_s: float) -> tuple[socket.socket, str]:
    """A connected socket and its address."""
    loop = asyncio.get_running_loop()
    sock = await start_connection(
        found,
        # Each address gets its share of a short timeout.
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
    """Connect a socket to its protocol, through the proxy if there is one. Takes over the socket."""
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
            # uvloop's transport closes the descriptor, but forgets its owner if it ends early.
            sock.detach()


class _Sockets:
    """The loop methods that start_connection uses, for uvloop.

    uvloop's sock_connect resolves the given address in libuv's threads. That loses an IPv6 zone, and those
    threads crash a forked child at its exit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def sock_connect(self, sock: socket.socket, sockaddr: Any) -> None:
        """Connect a non-blocking socket."""
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
    """Make the error for a failed connection: TLSError if certificates failed, ConnectError otherwise.

    Args:
        error: The failure.
        address: The server's address.
        tried: The IP addresses that were tried (of the proxy, if there is one); named if there are several.
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
        asks = "ALERT_HANDSHAKE_FAILURE" in reason  # TLS 1.2, if the client sends no certificate
        hint = "does it ask for a client certificate?" if asks else "is this a TLS port?"
        return TLSError(f"TLS with {address} failed: {reason}; {hint}")
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return ConnectError(f"cannot connect to {way}: timed out{several}")
    if isinstance(error, socket.gaierror):
        return ConnectError(f"cannot resolve {(proxy or address).host}: {error.strerror or error}")
    return ConnectError(f"cannot connect to {way}: {error or type(error).__name__}{several}")


# The descriptor and inode of each connection, by protocol.
_opened: weakref.WeakKeyDictionary[asyncio.BaseProtocol, tuple[int, int]] = weakref.WeakKeyDictionary()


def _let_go_in_child() -> None:
    """Close the child's copies of the parent's sockets; otherwise a server would not notice the parent's end.

    /dev/null keeps the numbers in use, for the objects of the parent's loop to close; that loop is not told,
    because it shares its epoll instance with the parent.
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
    """Set the options of a socket, before a transport takes it.

    Through uvloop's transport, each call would create a `socket.socket`. If gevent has patched that class, this creates
    a hub for the calling thread; a thread that creates its own at the same time may then deadlock with this one.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)  # not every platform has all options
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
