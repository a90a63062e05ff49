"""Decodes protobuf requests as protobuf-go does (protobuf-go 1.34, `internal/impl/decode.go`, `encoding/protowire`).

google.protobuf decodes nearly all requests. This decoder handles the rest. If google.protobuf refuses a request, it
finds what Go reads before it fails, or that Go accepts the request. If a request has a varint of more than 64 bits, it
refuses the request as Go does, although google.protobuf accepts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from raccoon_fast.collector.decode_errors import MalformedRequest
from raccoon_fast.collector.messages import SendEventRequest

__all__ = ["decode_proto_request"]

_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = 0, 1, 2, 3, 4, 5
_MAX_FIELD = (1 << 29) - 1
_MAX_DEPTH = 10_001  # protowire.DefaultRecursionLimit plus the outermost group
# protobuf-go puts a no-break space into its error texts to keep programs from matching them.
_CANNOT_PARSE = "proto:\N{NO-BREAK SPACE}cannot parse invalid wire-format data"
_INVALID_UTF8 = "proto:\N{NO-BREAK SPACE}field %s contains invalid UTF-8"
# A varint of ten bytes has at least this value when unsigned; as an int64 it is negative or at least this large.
_LONG_VARINT = 1 << 62
# It accepts more than the compiled form does, and raises other exceptions.
_IS_PURE = api_implementation.Type() == "python"


class _InvalidError(Exception):
    pass


def decode_proto_request(data: bytes) -> Any:
    """Decode a SendEventRequest.

    Returns:
        A SendEventRequest.

    Raises:
        MalformedRequest: Go refuses the request; the message has the server's words.
    """
    if _IS_PURE:
        return _decode_as_go(data)
    try:
        request = SendEventRequest.FromString(data)
    except DecodeError:
        return _decode_as_go(data)
    # `seconds` is the only varint in a known field; unknown fields may contain others.
    seconds = request.sent_time.seconds if request.HasField("sent_time") else 0
    if not -1 < seconds < _LONG_VARINT or len(UnknownFieldSet(request)):
        return _decode_as_go(data)
    return request


def _decode_as_go(data: bytes) -> Any:
    request = SendEventRequest()
    try:
        _read_request(request, data)
    except _InvalidError as error:
        raise MalformedRequest(str(error) or _CANNOT_PARSE, request.req_guid) from None
    return request


def _read_request(request: Any, data: bytes) -> None:
    for number, value in _fields(data):
        if isinstance(value, int):
            continue  # an unknown field, or a known one with the wrong wire type
        if number == 1:
            request.req_guid = _text(value, "raystack.raccoon.v1beta1.SendEventRequest.req_guid")
        elif number == 2:
            request.sent_time.SetInParent()
            _read_timestamp(request.sent_time, value)
        elif number == 3:
            _read_event(request.events.add(), value)


def _read_timestamp(timestamp: Any, data: bytes) -> None:
    for number, value in _fields(data):
        if isinstance(value, int):
            if number == 1:
                timestamp.seconds = _signed(value, 64)
            elif number == 2:
                timestamp.nanos = _signed(value, 32)


def _read_event(event: Any, data: bytes) -> None:
    for number, value in _fields(data):
        if isinstance(value, int):
            continue
        if number == 1:
            event.event_bytes = value
        elif number == 2:
            event.type = _text(value, "raystack.raccoon.v1beta1.Event.type")


def _text(value: bytes, field: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _InvalidError(_INVALID_UTF8 % field) from None


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield each field's number with its bytes (length-delimited) or value (varint); other fields are only checked."""
    at = 0
    while at < len(data):
        tag, at = _take_varint(data, at)
        number, kind = _check_tag(tag)
        if kind == _BYTES:
            size, at = _take_varint(data, at)
            if size > len(data) - at:
                raise _InvalidError
            yield number, data[at : at + size]
            at += size
        elif kind == _VARINT:
            value, at = _take_varint(data, at)
            yield number, value
        else:
            at = _skip(data, at, number, kind)


def _check_tag(tag: int) -> tuple[int, int]:
    number, kind = tag >> 3, tag & 7
    if not 1 <= number <= _MAX_FIELD:
        raise _InvalidError
    return number, kind


def _skip(data: bytes, at: int, number: int, kind: int) -> int:
    """The position after a field without a length; groups are followed without recursion."""
    groups = []
    while True:
        if kind == _VARINT:
            at = _take_varint(data, at)[1]
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        elif kind == _BYTES:
            size, at = _take_varint(data, at)
            at += size
        elif kind == _START_GROUP:
            groups.append(number)
            if len(groups) > _MAX_DEPTH:
                raise _InvalidError
        elif kind != _END_GROUP or not groups or groups.pop() != number:
            raise _InvalidError
        if at > len(data):
            raise _InvalidError
        if not groups:
            return at
        tag, at = _take_varint(data, at)
        number, kind = _check_tag(tag)


def _take_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if at + index >= len(data):
            raise _InvalidError
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value >= 1 << 64:
                raise _InvalidError
            return value, at + index + 1
    raise _InvalidError
