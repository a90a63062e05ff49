"""Parses the head of an HTTP/1 request as Go's net/http does, and builds Go's answers to heads that it refuses.

Sources: Go 1.22 `net/http` (`readRequest`, `conn.serve`, `readTransfer`), `net/textproto` (`ReadMIMEHeader`).
An existing parser cannot be used: Go accepts what llhttp and h11 refuse (unknown methods, bare LF, folded headers,
HTTP/1.2).
"""

from __future__ import annotations

import http
import re
from typing import NamedTuple

from raccoon_fast.collector.go_url import Target, parse_target

__all__ = ["MAX_HEAD_BYTES", "Head", "RefusedHead", "find_end", "parse_head", "parse_trailer", "refuses_first_line"]

#: net/http's DefaultMaxHeaderBytes plus the 4096 bytes that `initialReadLimitSize` adds.
MAX_HEAD_BYTES = (1 << 20) + 4096

_END = re.compile(rb"\n\r?\n")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z ]+")
_BAD_VALUE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
# golang.org/x/net/http/httpguts, `validHostByte`.
_HOST = re.compile(rb"[!$%&()*+,\-.0-9:;=A-Z\[\]'_a-z~]*")
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_ERROR_HEADERS = b"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"


class RefusedHead(Exception):
    """A head that Go's server refuses.

    Attributes:
        answer: The bytes that Go writes before it closes the connection.
    """

    def __init__(self, status: int = 400, reason: str = "", body: str = "") -> None:
        words = f"{status} {http.HTTPStatus(status).phrase}" + (f": {reason}" if reason else "")
        super().__init__(words)
        self.status = status
        self.answer = b"HTTP/1.1 " + words.encode() + _ERROR_HEADERS + (body or words).encode()


class Head(NamedTuple):
    """A request's head.

    Attributes:
        method: The method as the client sent it.
        target: The request target.
        minor: The minor version; 0 for HTTP/1.0.
        headers: Names in lower case with their values, in the order received.
        content_length: The body's length in bytes; None if the body is chunked.
        closes: Whether the client wants the connection closed after the answer.
        keeps_alive: Whether an HTTP/1.0 client asked to keep the connection open.
    """

    method: str
    target: Target
    minor: int
    headers: tuple[tuple[str, str], ...]
    content_length: int | None
    closes: bool
    keeps_alive: bool

    def first(self, name: str) -> str | None:
        """The first value of a header, as Go's `Header.Get`; None if the header is missing."""
        return next((value for key, value in self.headers if key == name), None)

    def has_token(self, name: str, token: str) -> bool:
        """Whether a header lists `token`, as `httpguts.HeaderValuesContainsToken` decides."""
        return _has_token(self.headers, name, token)


def find_end(data: bytes | bytearray, start: int) -> int:
    """The index after the head, which begins at 0; -1 while it is incomplete. Starts to search at `start`."""
    match = _END.search(data, max(0, start - 2))
    return -1 if match is None else match.end()


def refuses_first_line(line: bytes) -> RefusedHead | None:
    """The refusal of a request line, which Go sends before it reads the headers; None if Go accepts the line."""
    try:
        _parse_line(line)
    except RefusedHead as refused:
        return refused
    return None


def parse_head(data: bytes) -> Head:
    """Parse a complete head, including its empty line.

    Raises:
        RefusedHead: Go's server refuses the head.
    """
    first, _, rest = data.partition(b"\n")
    method, target, (major, minor) = _parse_line(first)
    headers = _parse_headers(rest)
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) > 1:
        raise RefusedHead
    content_length = _body_length(method, (major, minor), headers)
    if major != 1 and not (method == "PRI" and target.path == b"*" and (major, minor) == (2, 0)):
        raise RefusedHead(505, "unsupported protocol version")
    if minor >= 1 and not hosts and method != "CONNECT":
        raise RefusedHead(400, "missing required Host header")
    if hosts and not _HOST.fullmatch(hosts[0].encode("latin-1")):
        raise RefusedHead(400, "malformed Host header")
    if any(" " in name for name, _ in headers):
        raise RefusedHead(400, "invalid header name")
    has_close = _has_token(headers, "connection", "close")
    keeps_alive = minor == 0 and _has_token(headers, "connection", "keep-alive")
    closes = has_close or (minor == 0 and not keeps_alive)
    return Head(method, target, minor, tuple(headers), content_length, closes, keeps_alive)


def parse_trailer(data: bytes) -> int:
    """The length of the trailer at the start of `data`, including its empty line.

    Raises:
        RefusedHead: A line of the trailer is not a header.
    """
    end = 1 if data.startswith(b"\n") else find_end(data, 0)
    _parse_headers(data[:end])
    return end


def _parse_line(line: bytes) -> tuple[str, Target, tuple[int, int]]:
    method, space, rest = (line[:-1] if line.endswith(b"\r") else line).partition(b" ")
    target, second_space, version = rest.partition(b" ")
    if not (space and second_space and _TOKEN.fullmatch(method)):
        raise RefusedHead
    match = _VERSION.fullmatch(version)
    if match is None:
        raise RefusedHead
    try:
        parsed = parse_target(target, is_connect=method == b"CONNECT")
    except ValueError:
        raise RefusedHead from None
    return method.decode("ascii"), parsed, (int(match[1]), int(match[2]))


def _parse_headers(data: bytes) -> list[tuple[str, str]]:
    if data[:1] in (b" ", b"\t"):
        raise RefusedHead  # a continuation line without a header before it
    lines: list[bytes] = []
    for line in data.split(b"\n"):
        line = line[:-1] if line.endswith(b"\r") else line
        if not line:
            break
        if line[:1] in (b" ", b"\t") and lines:
            lines[-1] = lines[-1].rstrip(b" \t") + b" " + line.strip(b" \t")
        else:
            lines.append(line)
    headers = []
    for line in lines:
        name, colon, value = line.rstrip(b" \t").partition(b":")
        if not colon or not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise RefusedHead
        headers.append((name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")))
    return headers


def _body_length(method: str, version: tuple[int, int], headers: list[tuple[str, str]]) -> int | None:
    """The body's length in bytes, as `readTransfer` determines it; None if the body is chunked.

    Raises:
        RefusedHead: The headers do not determine the length.
    """
    codings = [value for name, value in headers if name == "transfer-encoding"]
    if codings and version >= (1, 1):
        if len(codings) != 1 or codings[0].lower() != "chunked":
            raise RefusedHead(501, body="Unsupported transfer encoding")
        return None
    lengths = [value.strip(" \t") for name, value in headers if name == "content-length"]
    if len(set(lengths)) > 1:
        raise RefusedHead
    if not lengths:
        return 0
    digits = lengths[0]
    # As `strconv.ParseUint(…, 10, 63)`.
    if not (digits.isascii() and digits.isdigit()) or len(digits.lstrip("0")) > 19 or int(digits) >= 1 << 63:
        raise RefusedHead
    return int(digits)


def _has_token(headers: list[tuple[str, str]] | tuple[tuple[str, str], ...], name: str, token: str) -> bool:
    return any(part.strip(" \t").lower() == token for key, value in headers if key == name for part in value.split(","))
