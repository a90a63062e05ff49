"""Parses request targets as Go's net/url does, and cleans paths as gorilla/mux does.

Sources: Go 1.22 `net/url` (`ParseRequestURI`, `URL.String`), gorilla/mux 1.8.0 (`Router.ServeHTTP`, `cleanPath`).
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

__all__ = ["Target", "clean_path", "origin_host", "parse_target"]

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")
# A host may not escape ASCII characters, except the percent sign (`unescape`, `encodeHost`).
_BAD_HOST_ESCAPE = re.compile(rb"%(?!25)[0-7]")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_PORT = re.compile(rb"(?::[0-9]*)?\Z")
# The characters that `shouldEscape` leaves unescaped in a host, `parseHost` in brackets, and `shouldEscape` in a path.
_HOST = re.compile(rb"[A-Za-z0-9\-_.~!$&'()*+,;=:\[\]<>\"%\x80-\xff]*")
_IN_PATH = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~$&+,/:;=@")
_IN_RAW_PATH = re.compile(rb"[A-Za-z0-9\-_.~$&+,/:;=@!'()*\[\]%]*")
_USER = re.compile(rb"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")


class Target(NamedTuple):
    """A request's target.

    Attributes:
        path: The decoded path.
        query: The query without the question mark.
        host: The host of an absolute target; otherwise empty.
        scheme: The scheme in lower case; empty if the target is a path.
        raw_path: The path as the client sent it.
        user: The user information of an absolute target; otherwise empty.
        has_empty_query: Whether the target ends with a question mark.
        opaque: The text after the scheme if it is not a path.
    """

    path: bytes
    query: bytes = b""
    host: bytes = b""
    scheme: bytes = b""
    raw_path: bytes = b""
    user: bytes = b""
    has_empty_query: bool = False
    opaque: bytes = b""

    def redirected(self, path: bytes) -> bytes:
        """The URL of `path` on the same host and with the same query, as `URL.String` writes it."""
        escaped = _escape(path)
        if _unescaped_as(self.raw_path, path):
            escaped = self.raw_path
        location = self.scheme + b":" if self.scheme else b""
        if self.opaque:
            escaped = self.opaque
        elif self.scheme or self.host or self.user:
            user = self.user + b"@" if self.user else b""
            location += b"//" + user + self.host
        elif path.startswith(b"//"):
            location += b"//"
        location += escaped
        return location + (b"?" + self.query if self.query or self.has_empty_query else b"")


def parse_target(target: bytes, *, is_connect: bool = False) -> Target:
    """Parse the target of a request line.

    Args:
        target: The target as the client sent it.
        is_connect: Whether the method is CONNECT, whose target may be only an authority.

    Raises:
        ValueError: Go's server answers 400 to this target.
    """
    is_authority = is_connect and not target.startswith(b"/")
    parsed = _parse(b"http://" + target if is_authority else target)
    return parsed._replace(scheme=b"") if is_authority else parsed


def clean_path(path: bytes) -> bytes:
    """The path without empty, `.` and `..` elements; gorilla/mux redirects to it if it differs."""
    if not path:
        return b"/"
    absolute = path if path.startswith(b"/") else b"/" + path
    cleaned = b"/" + posixpath.normpath(absolute).lstrip(b"/")
    return cleaned + b"/" if absolute.endswith(b"/") and cleaned != b"/" else cleaned


def origin_host(origin: bytes) -> bytes | None:
    """The host and port in an Origin header; None if Go cannot parse the header."""
    try:
        if _CONTROL.search(origin):
            return None
        scheme, rest = _split_scheme(origin.partition(b"#")[0])
        rest = rest.partition(b"?")[0]
        if not rest.startswith(b"/"):
            # `url.Parse` accepts a rootless path, but its first element may contain a colon only after a scheme.
            is_bad = not scheme and b":" in rest.partition(b"/")[0]
            return None if is_bad or _BAD_ESCAPE.search(rest) else b""
        if rest.startswith(b"//") and (scheme or not rest.startswith(b"///")):
            authority, _, path = rest[2:].partition(b"/")
            if _BAD_ESCAPE.search(path):
                return None
            return _parse_authority(authority)[1]
    except ValueError:
        return None
    return b""


def _parse(target: bytes) -> Target:
    if not target or _CONTROL.search(target):
        raise ValueError("the target is empty or has a control character")
    if target == b"*":
        return Target(b"*")
    scheme, rest = _split_scheme(target)
    has_empty_query = rest.endswith(b"?") and rest.count(b"?") == 1
    rest, _, query = rest.partition(b"?")
    user = host = b""
    if not rest.startswith(b"/"):
        if scheme:
            return Target(b"", query, scheme=scheme, has_empty_query=has_empty_query, opaque=rest)
        raise ValueError("the target is neither a path nor an absolute URI")
    if scheme and rest.startswith(b"//"):
        authority, slash, path = rest[2:].partition(b"/")
        user, host = _parse_authority(authority)
        rest = slash + path
    if _BAD_ESCAPE.search(rest):
        raise ValueError("the path has a bad escape")
    return Target(unquote_to_bytes(rest), query, host, scheme, rest, user, has_empty_query)


def _split_scheme(text: bytes) -> tuple[bytes, bytes]:
    if text.startswith(b":"):
        raise ValueError("the scheme is missing")
    match = _SCHEME.match(text)
    return (text[: match.end() - 1].lower(), text[match.end() :]) if match else (b"", text)


def _parse_authority(authority: bytes) -> tuple[bytes, bytes]:
    user, at, host = authority.rpartition(b"@")
    if at and (not _USER.fullmatch(user) or _BAD_ESCAPE.search(user)):
        raise ValueError("the user is malformed")
    if host.startswith(b"["):
        _, bracket, port = host.rpartition(b"]")
        if not bracket:
            raise ValueError("the host lacks its closing bracket")
    else:
        colon = host.rfind(b":")
        port = host[colon:] if colon >= 0 else b""
    if not _PORT.match(port) or not _HOST.fullmatch(host) or _BAD_ESCAPE.search(host):
        raise ValueError("the host is malformed")
    _check_host_escapes(host)
    return user, unquote_to_bytes(host)


def _check_host_escapes(host: bytes) -> None:
    """Refuse escapes that are not allowed in a host or in the zone of a bracketed address (`parseHost`)."""
    before, zone, after = host, b"", b""
    if host.startswith(b"["):
        address, _, after = host.rpartition(b"]")
        before, percent, zone = address.partition(b"%25")
        zone = percent + zone
    # A zone may only escape characters that are allowed unescaped, the space and the percent sign.
    escaped = [bytes.fromhex(match.decode()) for match in _ESCAPED.findall(zone)]
    allowed = (byte in (b" ", b"%") or (byte < b"\x80" and _HOST.fullmatch(byte)) for byte in escaped)
    if _BAD_HOST_ESCAPE.search(before) or _BAD_HOST_ESCAPE.search(after) or not all(allowed):
        raise ValueError("the host has an escape that Go refuses")


def _escape(path: bytes) -> bytes:
    return b"".join(b"%c" % byte if byte in _IN_PATH else b"%%%02X" % byte for byte in path)


def _unescaped_as(raw_path: bytes, path: bytes) -> bool:
    return bool(raw_path) and bool(_IN_RAW_PATH.fullmatch(raw_path)) and unquote_to_bytes(raw_path) == path
