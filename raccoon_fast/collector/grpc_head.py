"""Checks the headers of a gRPC call as grpc-go does.

Sources: grpc-go 1.63.2 (`internal/transport/http2_server.go`, `operateHeaders`; `server.go`, `handleStream`) and
golang.org/x/net/http2 (`Framer.readMetaFrame`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import NamedTuple

from raccoon_fast.collector.grpc_status import GrpcCode

__all__ = ["CallHead", "ProtocolError", "RefusedCall", "parse_call"]

_CONTENT_TYPE = "application/grpc"
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PSEUDO_NAMES = frozenset((":method", ":path", ":scheme", ":authority"))
_NOT_METADATA = frozenset(
    ("user-agent", "grpc-message-type", "grpc-message", "grpc-status", "te", "grpc-encoding", "grpc-timeout")
)
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"[+-]?[0-9]+")


class ProtocolError(Exception):
    """Invalid headers: the call ends with RST_STREAM and PROTOCOL_ERROR."""


class RefusedCall(Exception):
    """Headers that the server answers with an error.

    Attributes:
        http_status: The HTTP status.
        code: The gRPC status.
        content_type: The answer's content type.
    """

    def __init__(self, http_status: int, code: GrpcCode, reason: str, content_type: str = _CONTENT_TYPE) -> None:
        super().__init__(reason)
        self.http_status = http_status
        self.code = code
        self.content_type = content_type


class CallHead(NamedTuple):
    """The headers of a call.

    Attributes:
        path: The method's full name after a slash.
        content_type: The answer's content type.
        encoding: The compression of messages; "" and "identity" mean none.
        timeout_s: How long the client waits, in seconds; None without a timeout.
        metadata: The headers as received, names with their values.
    """

    path: str
    content_type: str
    encoding: str
    timeout_s: float | None
    metadata: list[tuple[str, str]]


def parse_call(headers: Iterable[tuple[bytes, bytes]]) -> CallHead:
    """Check the headers of a call.

    Raises:
        ProtocolError: The headers are not valid HTTP/2.
        RefusedCall: The headers are not valid gRPC.
    """
    fields = [(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in headers]
    _check_fields(fields)
    named = dict(fields)
    for name in (":authority", "host"):
        if sum(key == name for key, _ in fields) > 1:
            raise RefusedCall(400, GrpcCode.INTERNAL, f"num values of {name} must only be 1 as per HTTP/2 spec")
    if "connection" in named:
        raise ProtocolError("a header is allowed in HTTP/1 only")
    content_type = _answered_content_type([value for name, value in fields if name == "content-type"])
    timeout_s = _read_metadata(fields, content_type)
    if named.get(":method") != "POST":
        words = f'Received a HEADERS frame with :method "{named.get(":method", "")}" which should be POST'
        raise RefusedCall(405, GrpcCode.INTERNAL, words, content_type)
    return CallHead(named.get(":path", ""), content_type, named.get("grpc-encoding", ""), timeout_s, fields)


def _check_fields(fields: list[tuple[str, str]]) -> None:
    seen: set[str] = set()
    is_regular = False
    for name, value in fields:
        if _BAD_VALUE.search(value):
            raise ProtocolError(f"the value of {name!r} has a control character")
        if not name.startswith(":"):
            is_regular = True
            if not _NAME.fullmatch(name):
                raise ProtocolError(f"{name!r} is not a valid header name")
        elif is_regular or name in seen or name not in _PSEUDO_NAMES:
            raise ProtocolError(f"{name!r} is unknown, repeated, or after a regular header")
        else:
            seen.add(name)


def _answered_content_type(values: list[str]) -> str:
    """The answer's content type. Go uses the last one that is a gRPC type."""
    answered, refused = "", ""
    for value in values:
        if value == _CONTENT_TYPE:
            answered = _CONTENT_TYPE
        elif value.startswith((f"{_CONTENT_TYPE}+", f"{_CONTENT_TYPE};")):
            subtype = value[len(_CONTENT_TYPE) + 1 :]
            answered = f"{_CONTENT_TYPE}+{subtype}" if subtype else _CONTENT_TYPE
        else:
            refused = value
    if not answered:
        raise RefusedCall(415, GrpcCode.INVALID_ARGUMENT, f'invalid gRPC request content-type "{refused}"')
    return answered


def _read_metadata(fields: list[tuple[str, str]], content_type: str) -> float | None:
    """The timeout in seconds; None without one."""
    timeout_s: float | None = None
    problem = ""
    for name, value in fields:
        if name == "grpc-timeout":
            try:
                timeout_s = _parse_timeout(value)
            except ValueError as error:
                problem = f"malformed grpc-timeout: {error}"
        elif name.endswith("-bin") and name not in _NOT_METADATA and not _is_base64(value):
            problem = f'malformed binary metadata "{value}" in header "{name}": illegal base64 data'
    if problem:
        raise RefusedCall(400, GrpcCode.INTERNAL, problem, content_type)
    return timeout_s


def _parse_timeout(text: str) -> float:
    if not 2 <= len(text.encode("utf-8", "surrogateescape")) <= 9:
        raise ValueError(f'transport: timeout string is too {"short" if len(text) < 2 else "long"}: "{text}"')
    unit = _UNITS_S.get(text[-1])
    if unit is None:
        raise ValueError(f'transport: timeout unit is not recognized: "{text}"')
    if not _TIMEOUT.fullmatch(text[:-1]) or not text.isascii():
        raise ValueError(f'strconv.ParseInt: parsing "{text[:-1]}": invalid syntax')
    return int(text[:-1]) * unit


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except ValueError:
        return False
    return len(value) % 4 != 1
