"""Server addresses: what a URL may be, and what it means, for each transport."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["EVENTS_PATH", "Address", "parse_address"]

#: The one path of REST and WebSocket on a Raccoon server.
EVENTS_PATH = "/api/v1/events"

_SCHEMES = {
    "REST": {"http": (False, 80), "https": (True, 443)},
    "WebSocket": {"ws": (False, 80), "wss": (True, 443)},
    "gRPC": {"grpc": (False, 8081), "grpcs": (True, 443)},
}


class Address(NamedTuple):
    """Where a transport connects.

    Attributes:
        scheme: "http", "https", "ws", "wss", "grpc" or "grpcs".
        host: A name or an IP address, without brackets.
        port: 1 to 65535.
        path: Path and query; "" for gRPC.
        secure: Whether TLS is spoken.
        userinfo: (user, password) from the URL, or None.
    """

    scheme: str
    host: str
    port: int
    path: str
    secure: bool
    userinfo: tuple[str, str] | None = None

    @property
    def authority(self) -> str:
        """host:port, an IPv6 address in brackets; the port left out where it is the scheme's own over HTTP."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if (self.scheme, self.port) in (("http", 80), ("https", 443), ("ws", 80), ("wss", 443)):
            return host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        # Never the userinfo: addresses are logged.
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_address(url: str, protocol: str) -> Address:
    """Read a URL for one protocol.

    A URL without a path gets `/api/v1/events`. For gRPC, `host:port` alone is plain text, as `grpc://host:port`.

    Args:
        url: The user's URL.
        protocol: "REST", "WebSocket" or "gRPC".

    Raises:
        TypeError: `url` is not a str.
        ValueError: The scheme, host or port is missing, unknown or malformed; the message says what was expected.
    """
    schemes = _SCHEMES[protocol]
    expected = " or ".join(f"{scheme}://host:port" for scheme in schemes)
    if not isinstance(url, str):
        raise TypeError(f"url must be a str such as {expected}, not {type(url).__name__}")
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"url must not hold spaces or control characters: {url!r}")
    parts = urlsplit(url if "://" in url or protocol != "gRPC" else f"grpc://{url}")
    if parts.scheme not in schemes:
        raise ValueError(f"url must be {expected} for {protocol}, not {_without_userinfo(url)!r}")
    secure, default_port = schemes[parts.scheme]
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url {_without_userinfo(url)!r}: {error}") from None
    if not host:
        raise ValueError(f"url must name a host, as in {expected}: {_without_userinfo(url)!r}")
    if port == 0:
        raise ValueError(f"url's port must be 1 to 65535: {_without_userinfo(url)!r}")
    if parts.fragment:
        raise ValueError(f"url must not have a #fragment: {_without_userinfo(url)!r}")
    path = parts.path
    if protocol == "gRPC":
        if path not in ("", "/") or parts.query:
            raise ValueError(f"url must not have a path for gRPC: {_without_userinfo(url)!r}")
        path = ""
    else:
        path = EVENTS_PATH if path in ("", "/") else path
        path += f"?{parts.query}" if parts.query else ""
        if not path.isascii():
            raise ValueError(f"url's path must be percent-encoded ASCII: {path!r}")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"url's host is not a valid name: {host!r}") from None
    userinfo = None if parts.username is None else (parts.username, parts.password or "")
    return Address(parts.scheme, host, port or default_port, path, secure, userinfo)


def _without_userinfo(url: str) -> str:
    """The URL as it may stand in a message: a password in it is a secret."""
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, separator, _ = head.partition("://")
    return f"{scheme}{separator}…@{tail}" if separator else f"…@{tail}"
