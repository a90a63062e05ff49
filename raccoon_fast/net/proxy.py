"""Forward proxies: selects the proxy for a server, and opens the tunnel through it."""

from __future__ import annotations

import asyncio
import base64
import functools
import importlib.util
import ipaddress
import re
import ssl
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from raccoon_fast.errors import ConnectError, TLSError
from raccoon_fast.net.address import decode_userinfo, parse_host, without_secrets
from raccoon_fast.texts import one_line
from raccoon_fast.tls import TLS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from raccoon_fast.net.address import Address

__all__ = ["Proxy", "connect_socks", "hand_on", "open_tunnel", "parse_proxy", "proxy_for"]

_P = TypeVar("_P", bound=asyncio.Protocol)

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
# Limit for the head of a proxy's answer, in case it never ends.
_MAX_HEAD_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]*))?")


class Proxy(NamedTuple):
    """A forward proxy.

    Attributes:
        scheme: "http", "https" (TLS to the proxy itself), "socks5" or "socks5h"; with the last two the proxy looks up
            names.
        host: A name in ASCII, or an IP address.
        port: 1 to 65535.
        userinfo: (user, password), or None.
    """

    scheme: str
    host: str
    port: int
    userinfo: tuple[str, str] | None = None

    def __str__(self) -> str:
        # Never the userinfo: proxies are logged, and named in errors.
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Proxy({str(self)!r})"


def parse_proxy(url: object, source: str = "proxy") -> Proxy:
    """Parse a proxy's URL.

    Args:
        url: http, https, socks5 or socks5h; without a port, 80, 443 or 1080.
        source: The origin of the URL, for errors.

    Raises:
        TypeError: The URL is not a str.
        ValueError: The URL is malformed, or SOCKS is used without the package python-socks.
    """
    if not isinstance(url, str):
        raise TypeError(f"{source} takes a str such as http://proxy:3128, not {type(url).__name__}")
    shown = without_secrets(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # its message may contain a part of the password
        raise ValueError(
            f"{source} {shown!r} cannot be parsed: the port must be a number from 1 to 65535, and special characters "
            "of the user or password must be percent-encoded"
        ) from None
    if parts.scheme not in _PORTS or any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"{source} must be http://, https:// or socks5://host:port, not {shown!r}")
    if not host or port == 0:
        raise ValueError(f"{source} must name a host and a port, as in http://proxy:3128: {shown!r}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{source} must end with a port: {shown!r}")
    if parts.scheme.startswith("socks") and importlib.util.find_spec("python_socks") is None:
        raise ValueError(f"{source}: SOCKS needs the package python-socks: pip install 'raccoon_fast[socks]'")
    try:
        userinfo = None if parts.username is None else decode_userinfo(parts.username, parts.password or "")
        return Proxy(parts.scheme, parse_host(host), port or _PORTS[parts.scheme], userinfo)
    except ValueError as error:
        raise ValueError(f"{source} {shown!r}: {error}") from None


def proxy_for(address: Address, url: object, *, trust_env: bool) -> Proxy | None:
    """The proxy for a server, or None.

    Args:
        address: The server.
        url: The user's option; None reads the environment.
        trust_env: Whether HTTPS_PROXY (for TLS), HTTP_PROXY (for plain text), ALL_PROXY and NO_PROXY apply, as they do
            for httpx; on macOS and Windows the system's settings too.

    Raises:
        TypeError, ValueError: As for parse_proxy; the message names the option or the variable.
    """
    if address.unix_path:
        if url is not None:
            raise ValueError(f"proxy is given, but {address} is a Unix socket")
        return None
    if url is not None:
        return parse_proxy(url)
    if not trust_env:
        return None
    from urllib.request import getproxies

    settings = getproxies()
    if _is_exempt(address, settings.get("no", "")):
        return None
    for key in ("https" if address.secure else "http", "all"):
        found = settings.get(key)
        if found:
            return parse_proxy(found if "://" in found else f"http://{found}", f"{key.upper()}_PROXY")
    return None


def _is_exempt(address: Address, no_proxy: str) -> bool:
    """Whether NO_PROXY names the server.

    As in httpx: a name includes its subdomains, a name with a leading dot matches only subdomains, and `*` matches all.
    In addition, networks such as 10.0.0.0/8 work.
    """
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if entry == "*":
            return True
        if entry and _matches(address, entry):
            return True
    return False


def _matches(address: Address, entry: str) -> bool:
    host = address.server_name
    scheme, separator, rest = entry.rpartition("://")
    if separator and scheme not in ("all", "https" if address.secure else "http", address.scheme):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rest.strip("[]"), strict=False)
    except ValueError:
        pass  # one of them is a name or has a port
    try:
        parts = urlsplit(f"//{rest}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if port is not None and port != address.port:
        return False
    name = name.removeprefix("*")
    if name.startswith("."):
        return host.endswith(name)
    return host == name or (host.endswith(f".{name}") and name != "localhost")


async def connect_socks(sock: socket.socket, proxy: Proxy, address: Address) -> None:
    """Ask a SOCKS5 proxy to connect `sock` to the server (RFC 1928, 1929); the proxy resolves the name.

    Raises:
        ConnectError: The proxy refused; the message has its words.
        OSError: The connection failed. The socket is closed in both cases.
    """
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.asyncio import Proxy as SocksProxy

    class Connected:
        """Wraps the existing connection to the proxy."""

        async def connect(self, **_: object) -> socket.socket:
            return sock

    user, password = proxy.userinfo or (None, None)
    socks = SocksProxy(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        user,
        password,
        rdns=True,
        forward=cast("SocksProxy", Connected()),
        loop=asyncio.get_running_loop(),
    )
    try:
        await socks.connect(address.host, address.port)
    except ProxyError as error:
        raise _refusal(proxy, address, str(error)) from None


async def open_tunnel(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    proxy: Proxy,
    address: Address,
    tls: ssl.SSLContext | TLS | None,
) -> tuple[asyncio.Transport, _Tunnel]:
    """Ask an HTTP proxy to connect to the server (CONNECT: RFC 9110, 9.3.6).

    Args:
        loop: The running one.
        sock: A socket connected to the proxy; the transport owns it from here on.
        proxy: http or https.
        address: The server.
        tls: Its CAs are trusted for the proxy's certificate too, besides the system's.

    Returns:
        The tunnel, for `hand_on`.

    Raises:
        TLSError: The proxy's certificate is not trusted.
        ConnectError: The proxy refused; the message has its words.
        OSError: The connection failed.
    """
    is_secure = proxy.scheme == "https"
    try:
        transport, tunnel = await loop.create_connection(
            _Tunnel,
            sock=sock,
            ssl=_proxy_context(tls) if is_secure else None,
            server_hostname=proxy.host.removesuffix(".") if is_secure else None,
        )
    except ssl.SSLError as error:
        said = getattr(error, "verify_message", "") or error.reason or str(error)
        raise TLSError(f"TLS with the proxy {proxy} failed: {said}") from error
    try:
        host = f"[{address.host}]" if ":" in address.host else address.host
        await tunnel.ask(f"{host}:{address.port}", proxy, address)
    except BaseException:
        transport.abort()
        raise
    return transport, tunnel


async def hand_on(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    tunnel: _Tunnel,
    factory: Callable[[], _P],
    context: ssl.SSLContext | None,
    server_hostname: str | None,
) -> tuple[asyncio.Transport, _P]:
    """Pass the tunnel to the protocol that uses it, after a TLS handshake if there is a context."""
    try:
        if context is not None:
            if tunnel.received:
                raise ConnectError("the proxy sent bytes before the server could: this is no tunnel")
            try:
                secured = await loop.start_tls(transport, tunnel, context, server_hostname=server_hostname)
            except TypeError as error:  # asyncio before Python 3.11
                raise ConnectError("TLS through an https:// proxy needs uvloop or Python 3.11") from error
            if secured is None:
                raise ConnectionResetError("the connection was lost during the handshake of TLS")
            transport = secured
        protocol = factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        tunnel.replay(protocol)
    except BaseException:
        transport.abort()
        raise
    return transport, protocol


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel, and keeps incoming data until the tunnel is passed on."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._changed = asyncio.Event()
        self._has_ended = False
        self._lost: list[Exception | None] = []

    async def ask(self, target: str, proxy: Proxy, address: Address) -> None:
        assert self._transport is not None
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.userinfo is not None:
            lines.append(f"Proxy-Authorization: Basic {_credentials(proxy.userinfo)}")
        self._transport.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        while b"\r\n\r\n" not in self.received:
            if self._has_ended or len(self.received) > _MAX_HEAD_BYTES:
                raise _refusal(
                    proxy, address, "it closed the connection" if self._has_ended else "its answer is not HTTP"
                )
            self._changed.clear()
            await self._changed.wait()
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        status = _STATUS.match(head)
        if status is None:
            raise _refusal(proxy, address, "its answer is not HTTP")
        if not status[1].startswith(b"2"):
            wants_user = "; it wants a user and a password: proxy=http://user:password@host:port"
            raise _refusal(proxy, address, _words(status, head, rest), wants_user if status[1] == b"407" else "")
        self.received[:] = rest

    def replay(self, protocol: asyncio.Protocol) -> None:
        """Pass the data that arrived meanwhile to the protocol."""
        if self.received:
            protocol.data_received(bytes(self.received))
        if self._has_ended and not self._lost:
            protocol.eof_received()
        for error in self._lost:
            protocol.connection_lost(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._changed.set()

    def eof_received(self) -> bool:
        self._has_ended = True
        self._changed.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended = True
        self._lost.append(exc)
        self._changed.set()


def _refusal(proxy: Proxy, address: Address, said: str, advice: str = "") -> ConnectError:
    for secret in _secrets(proxy):
        said = said.replace(secret, "…")  # a proxy may quote the request; before the text is cut, perhaps within it
    return ConnectError(f"the proxy {proxy} does not connect to {address}: {one_line(said)}{advice}")


def _secrets(proxy: Proxy) -> list[str]:
    if proxy.userinfo is None:
        return []
    return [secret for secret in (_credentials(proxy.userinfo), proxy.userinfo[1]) if secret]


def _credentials(userinfo: tuple[str, str]) -> str:
    return base64.b64encode(":".join(userinfo).encode()).decode("ascii")  # RFC 7617


def _words(status: re.Match[bytes], head: bytes, rest: bytes) -> str:
    """The proxy's reasons: the status line, the headers that carry reasons, and a plain-text body."""
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers.setdefault(name.strip().lower(), value.strip())
    said = [b" ".join(part for part in status.groups() if part)]
    said += [headers[name] for name in (b"x-squid-error", b"proxy-status", b"proxy-authenticate") if name in headers]
    if headers.get(b"content-type", b"").startswith(b"text/plain"):
        said.append(b" ".join(rest.split()))
    return "; ".join(part.decode("latin-1") for part in said if part)


@functools.lru_cache(maxsize=8)
def _proxy_context(tls: ssl.SSLContext | TLS | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if isinstance(tls, TLS) and tls.ca is not None:
        context.load_verify_locations(tls.ca)
    return context
