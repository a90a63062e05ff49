"""Server addresses: parses and checks URLs for each transport."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = [
    "EVENTS_PATH",
    "PROTOCOLS",
    "Address",
    "decode_userinfo",
    "parse_address",
    "parse_host",
    "protocol_of",
    "without_secrets",
]

#: The only path of REST and WebSocket on a Raccoon server.
EVENTS_PATH = "/api/v1/events"

# Also the characters that Unicode treats as the same (its compatibility forms).
_AT = re.compile("[@\ufe6b\uff20]")
_SCHEMES = {
    "REST": {"http": (False, 80), "https": (True, 443)},
    "WebSocket": {"ws": (False, 80), "wss": (True, 443)},
    "gRPC": {"grpc": (False, 8081), "grpcs": (True, 443)},
}
_UNIX = "+unix"
#: The protocol of each URL scheme; "unix" alone names none.
PROTOCOLS = {
    scheme: protocol for protocol, schemes in _SCHEMES.items() for scheme in (*schemes, next(iter(schemes)) + _UNIX)
}

# Characters of an ASCII host name: RFC 952 and 1123, and the underscore of container names.
_NAME = re.compile(r"(?=.{1,254}$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_UNIX_PATH_BYTES = 107  # sun_path of sockaddr_un on Linux, without its final NUL


class Address(NamedTuple):
    """The address to which a transport connects.

    Attributes:
        scheme: "http", "https", "ws", "wss", "grpc" or "grpcs"; "null" for no server.
        host: The name to resolve in ASCII (IDNA A-labels), or an IP address without brackets; "localhost" for a
            Unix socket.
        port: 1 to 65535; 0 for a Unix socket.
        path: Path and query; "" for gRPC.
        secure: Whether to use TLS.
        userinfo: (user, password) from the URL, percent-decoded, or None.
        unix_path: The path of the Unix socket; "" for TCP.
    """

    scheme: str
    host: str
    port: int
    path: str
    secure: bool
    userinfo: tuple[str, str] | None = None
    unix_path: str = ""

    @property
    def authority(self) -> str:
        """The value of Host and `:authority`: host:port, without the default port of HTTP.

        RFC 9110, 4.2.3 and RFC 9113, 8.3.1: the default is 443 with TLS and 80 without, whatever the URL's scheme. An
        IPv6 address is in brackets, without its zone, which has no meaning on other machines (RFC 6874, 4).
        """
        if self.unix_path:
            return self.host
        return self._netloc(443 if self.secure else 80)

    @property
    def server_name(self) -> str:
        """The name that TLS sends and checks: without a trailing dot (RFC 6066, 3) or an IPv6 zone."""
        return self.host.partition("%")[0].removesuffix(".")

    @property
    def uri(self) -> str:
        """The URL of a request in HTTP; for a Unix socket the host is "localhost"."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def _netloc(self, default_port: int | None) -> str:
        host = self.host.partition("%")[0]
        host = f"[{host}]" if ":" in host else host
        return host if self.port == default_port else f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"

    def __str__(self) -> str:
        """For people: without the userinfo and the query, which may contain secrets."""
        if self.unix_path:
            return f"{self.scheme}{_UNIX}://{self.unix_path}"
        if not self.host:
            return f"{self.scheme}://"  # null://
        # A gRPC port is always shown: readers of a log do not know the default.
        default_port = {"http": 80, "ws": 80, "https": 443, "wss": 443}.get(self.scheme)
        return f"{self.scheme}://{self._netloc(default_port)}{self.path.partition('?')[0]}"


def protocol_of(url: object) -> str:
    """The protocol of a URL, by its scheme.

    Returns:
        "REST", "WebSocket" or "gRPC".

    Raises:
        TypeError: `url` is not a str.
        ValueError: The scheme is missing or names no protocol; the message lists the valid forms.
    """
    if not isinstance(url, str):
        raise _no_text(url, "http://host:port")
    scheme, separator, rest = url.partition("://")
    if not separator:
        spellings = ", ".join(f"{name}://{without_secrets(url)}" for name in ("http", "ws"))
        raise ValueError(f"url must name the protocol: {spellings} or grpc://{without_secrets(url)}")
    if scheme.lower() == "unix":
        rest = without_secrets(rest)
        spellings = ", ".join(f"{name}{_UNIX}://{rest}" for name in ("http", "ws"))
        raise ValueError(f"url must name the protocol: {spellings} or grpc{_UNIX}://{rest}")
    if scheme.lower() not in PROTOCOLS:
        raise ValueError(f"url must start with one of {', '.join(PROTOCOLS)}, not {scheme!r}")
    return PROTOCOLS[scheme.lower()]


def parse_address(url: str, protocol: str) -> Address:
    """Parse a URL for one protocol.

    A URL without a path gets `/api/v1/events`. For gRPC, `host:port` alone is plain text, as `grpc://host:port`.
    `unix:///path/to/socket` is plain text over a Unix socket; so are `http+unix`, `ws+unix` and `grpc+unix`.

    Args:
        url: The user's URL.
        protocol: "REST", "WebSocket" or "gRPC".

    Raises:
        TypeError: `url` is not a str.
        ValueError: The scheme, host or port is missing, unknown or malformed; the message says what is expected.
    """
    schemes = _SCHEMES[protocol]
    expected = " or ".join(f"{scheme}://host:port" for scheme in schemes)
    if not isinstance(url, str):
        raise _no_text(url, expected)
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"url must not contain spaces or control characters: {without_secrets(url)!r}")
    try:
        parts = urlsplit(url if "://" in url or protocol != "gRPC" else f"grpc://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:  # its message may contain a part of the password
        raise ValueError(
            f"url {without_secrets(url)!r} cannot be parsed: the port must be a number from 1 to 65535, an IPv6 "
            "address must be in brackets, and special characters of the user or password must be percent-encoded"
        ) from None
    if parts.scheme in ("unix", next(iter(schemes)) + _UNIX):
        return _unix_address(parts, next(iter(schemes)), protocol)
    if parts.scheme not in schemes:
        raise ValueError(f"url must be {expected} for {protocol}, not {without_secrets(url)!r}")
    secure, default_port = schemes[parts.scheme]
    if not host:
        raise ValueError(f"url must name a host, as in {expected}: {without_secrets(url)!r}")
    if port == 0:
        raise ValueError(f"url's port must be 1 to 65535: {without_secrets(url)!r}")
    if parts.fragment:
        raise ValueError(f"url must not have a #fragment: {without_secrets(url)!r}")
    path = parts.path
    if protocol == "gRPC":
        if path not in ("", "/") or parts.query:
            raise ValueError(f"url must not have a path for gRPC: {without_secrets(url)!r}")
        path = ""
    else:
        path = EVENTS_PATH if path in ("", "/") else path
        path += f"?{parts.query}" if parts.query else ""
        if not path.isascii():
            raise ValueError(f"url's path must be percent-encoded ASCII: {without_secrets(url)!r}")
    userinfo = None if parts.username is None else decode_userinfo(parts.username, parts.password or "")
    return Address(parts.scheme, parse_host(host), port or default_port, path, secure, userinfo)


def _no_text(url: object, expected: str) -> TypeError:
    if url is None:
        return TypeError(f"url must be a str such as {expected}, not None: does it come from an unset variable?")
    return TypeError(f"url must be a str such as {expected}, not {type(url).__name__}")


def _unix_address(parts: SplitResult, scheme: str, protocol: str) -> Address:
    if parts.netloc:
        hint = f"{parts.scheme}:///{_AT.split(parts.netloc)[-1]}{parts.path}"
        raise ValueError(f"url of a Unix socket must have an absolute path: {hint} (three slashes)")
    if parts.query or parts.fragment:
        raise ValueError(f"url of a Unix socket must not have a query or a #fragment: '{parts.scheme}://{parts.path}'")
    path = unquote(parts.path)
    if path in ("", "/") or "\0" in path:
        raise ValueError(f"url of a Unix socket must have a path, as in {parts.scheme}:///run/raccoon.sock")
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise ValueError(f"url: the path of a Unix socket has at most {_UNIX_PATH_BYTES} bytes: {path!r}")
    return Address(scheme, "localhost", 0, "" if protocol == "gRPC" else EVENTS_PATH, secure=False, unix_path=path)


def parse_host(host: str) -> str:
    """A URL's host in the form for DNS: IDNA A-labels, and an IPv6 zone after a bare `%`.

    Raises:
        ValueError: The host is not a valid name.
    """
    if ":" in host:
        address, separator, zone = host.partition("%")
        # RFC 6874: "%25" precedes a zone; the bare "%" of the commands ip and ping is accepted too.
        return address + separator + unquote(zone.removeprefix("25") if len(zone) > 2 else zone)
    name = host
    if not host.isascii():
        import idna

        try:
            name = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"url's host is not a valid name: {host!r}: {error}") from None
    if not _NAME.fullmatch(name):
        raise ValueError(f"url's host is not a valid name: {host!r}")
    return name


def decode_userinfo(user: str, password: str) -> tuple[str, str]:
    """Percent-decode user and password for Basic authentication (RFC 7617, 2). Messages show neither."""
    try:
        user, password = unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("url's user and password must be percent-encoded UTF-8") from None
    if ":" in user:
        raise ValueError("url's user must not contain a colon, which ends the user in Basic authentication")
    if any(character < " " or character == "\x7f" for character in user + password):
        raise ValueError("url's user and password must not contain control characters")
    return user, password


def without_secrets(url: str) -> str:
    """The URL for messages, without user, password and query, even if they are not percent-encoded."""
    *before, tail = _AT.split(url)
    scheme, separator, rest = url.partition("://")
    start = f"{scheme}{separator}" if separator else ""
    if re.search("[?#]", "".join(before)):  # of the password, or the @ is part of the query
        return f"{start}…"
    shown, *more = re.split("[?#]", tail if before else rest if separator else url, maxsplit=1)
    return f"{start}{'…@' if before else ''}{shown}{'?…' if more else ''}"
