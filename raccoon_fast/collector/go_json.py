"""Reads and writes JSON as the server does, with Go's encoding/json.

It differs from protobuf's own JSON mapping: only snake_case names, 64-bit integers as numbers, enums as numbers. It
differs from Python's json: names match in any case, null leaves a field unset, invalid UTF-8 becomes U+FFFD, NaN is an
error.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections.abc import Callable
from typing import Any, NoReturn

from raccoon_fast.collector.decode_errors import HandlerPanic, MalformedRequest
from raccoon_fast.collector.json_depth import is_too_deep, without_depths
from raccoon_fast.collector.messages import SendEventRequest

__all__ = ["decode_json_request", "encode_json_answer"]

_UINT8 = range(256)
_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_MAX_DIGITS = 20


def decode_json_request(data: bytes) -> Any:
    """Decode one request.

    Args:
        data: JSON text; each byte that is not valid UTF-8 becomes U+FFFD.

    Returns:
        A SendEventRequest.

    Raises:
        MalformedRequest: The text is not valid JSON, or a member has the wrong kind. For truncated JSON the message is
            that of encoding/json, otherwise it is similar. As Go does, the decoder skips members of the wrong kind and
            reports the first one at the end.
        HandlerPanic: An event is null.
    """
    text = data.decode("utf-8", _REPLACE_EACH)
    try:
        value = _parse(without_depths(text) if is_too_deep(text) else text)
    except RecursionError:
        value = _parse(without_depths(text))
    filler = _Filler()
    request = SendEventRequest()
    filler.fill(request, value, _REQUEST)
    if filler.error is not None:
        raise MalformedRequest(filler.error, request.req_guid)
    if filler.null_events:
        raise HandlerPanic("an event is null, which makes the server's handler panic")
    return request


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse_constant, parse_int=_parse_integer)
    except json.JSONDecodeError as error:
        raise MalformedRequest(_go_words(text, error)) from None


def encode_json_answer(answer: Any) -> bytes:
    """Encode a SendEventResponse: enums as numbers, no fields with value zero, and <, > and & escaped."""
    fields: dict[str, Any] = {}
    for name in ("status", "code", "sent_time", "reason"):
        if value := getattr(answer, name):
            fields[name] = value
    if answer.data:
        fields["data"] = dict(sorted(answer.data.items()))
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPES).encode()


_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


class _Object(list[tuple[str, Any]]):
    """A JSON object with its members in order: names that differ only in case can refer to the same field."""


def _replace_each(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\N{REPLACEMENT CHARACTER}" * (error.end - error.start), error.end


_REPLACE_EACH = "raccoon_fast.replace_each"
codecs.register_error(_REPLACE_EACH, _replace_each)


def _parse_integer(digits: str) -> int | float:
    # Longer integers are outside every range here, and int() refuses some of them.
    return int(digits) if len(digits) <= _MAX_DIGITS else float("inf")


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedRequest(f"invalid character {name[0]!r} looking for beginning of value")


def _go_words(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos :].strip(" \t\r\n")
    if not rest or "Unterminated" in error.msg:
        return "unexpected end of JSON input"
    return f"invalid character {rest[0]!r}: {error.msg}"


class _Mismatch(ValueError):
    """A member has the wrong kind."""


class _Filler:
    """Fills messages with JSON values.

    Attributes:
        error: The first error; None if there was none.
        null_events: The indexes of null events.
    """

    def __init__(self) -> None:
        self.error: str | None = None
        self.null_events: set[int] = set()

    def fill(self, message: Any, value: Any, setters: dict[str, _Setter]) -> None:
        """Fill `message` from a JSON object; unknown members are ignored."""
        if value is None:
            return
        if not isinstance(value, _Object):
            self.fail(_mismatch(value, message.DESCRIPTOR.name))
            return
        for name, member in value:
            setter = setters.get(name.casefold())
            if setter is None:
                continue
            try:
                setter(self, message, member)
            except _Mismatch as error:
                self.fail(error)

    def fail(self, error: Exception) -> None:
        """Remember the error if it is the first one."""
        if self.error is None:
            self.error = str(error)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, field)
    if value.isascii():
        return value
    # An escaped lone surrogate becomes U+FFFD.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _integer(value: Any, field: str, allowed: range) -> int:
    if type(value) is not int or value not in allowed:
        raise _mismatch(value, field)
    return value


def _mismatch(value: Any, field: str) -> _Mismatch:
    kind = "object" if isinstance(value, _Object) else type(value).__name__
    return _Mismatch(f"json: cannot unmarshal {kind} into Go struct field {field}")


def _set_req_guid(filler: _Filler, request: Any, value: Any) -> None:
    if value is not None:
        request.req_guid = _text(value, "SendEventRequest.req_guid of type string")


def _set_sent_time(filler: _Filler, request: Any, value: Any) -> None:
    if value is None:
        request.ClearField("sent_time")
        return
    request.sent_time.SetInParent()
    filler.fill(request.sent_time, value, _TIMESTAMP)


def _set_events(filler: _Filler, request: Any, value: Any) -> None:
    if value is None:
        del request.events[:]
        filler.null_events.clear()
        return
    if not isinstance(value, list) or isinstance(value, _Object):
        raise _mismatch(value, "SendEventRequest.events of type []*Event")
    # As Go does, decode a second list into the elements of the first.
    for index, member in enumerate(value):
        event = request.events[index] if index < len(request.events) else request.events.add()
        if member is None:
            event.Clear()
            filler.null_events.add(index)
        else:
            filler.null_events.discard(index)
            filler.fill(event, member, _EVENT)
    del request.events[len(value) :]
    filler.null_events = {index for index in filler.null_events if index < len(value)}


def _set_seconds(filler: _Filler, timestamp: Any, value: Any) -> None:
    if value is not None:
        timestamp.seconds = _integer(value, "Timestamp.sent_time.seconds of type int64", _INT64)


def _set_nanos(filler: _Filler, timestamp: Any, value: Any) -> None:
    if value is not None:
        timestamp.nanos = _integer(value, "Timestamp.sent_time.nanos of type int32", _INT32)


def _set_event_bytes(filler: _Filler, event: Any, value: Any) -> None:
    if value is None:
        event.event_bytes = b""
    elif isinstance(value, list) and not isinstance(value, _Object):
        numbers = bytearray(event.event_bytes[: len(value)].ljust(len(value), b"\0"))
        for index, number in enumerate(value):
            if number is None:
                continue
            try:
                numbers[index] = _integer(number, "Event.events.event_bytes of type uint8", _UINT8)
            except _Mismatch as error:
                filler.fail(error)
        event.event_bytes = bytes(numbers)
    else:
        event.event_bytes = _decode_base64(_text(value, "Event.events.event_bytes of type []uint8"))


def _decode_base64(text: str) -> bytes:
    encoded = text.replace("\r", "").replace("\n", "")
    try:
        if len(encoded) % 4:
            raise binascii.Error("incomplete")
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise _Mismatch("illegal base64 data") from None


def _set_type(filler: _Filler, event: Any, value: Any) -> None:
    if value is not None:
        event.type = _text(value, "Event.events.type of type string")


_Setter = Callable[[_Filler, Any, Any], None]
_REQUEST: dict[str, _Setter] = {"req_guid": _set_req_guid, "sent_time": _set_sent_time, "events": _set_events}
_TIMESTAMP: dict[str, _Setter] = {"seconds": _set_seconds, "nanos": _set_nanos}
_EVENT: dict[str, _Setter] = {"event_bytes": _set_event_bytes, "type": _set_type}
