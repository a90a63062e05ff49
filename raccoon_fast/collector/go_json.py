"""JSON as the server reads and writes it: with the manners of Go's encoding/json.

They differ from protobuf's own JSON mapping (snake_case names only, 64-bit integers as numbers, enums as numbers) and
from Python's json (names match without regard to case, null is "not there", broken text becomes U+FFFD, no NaN).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any, NoReturn

from raccoon_fast.collector.messages import SendEventRequest

__all__ = ["decode_json_request", "encode_json_answer"]

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)


def decode_json_request(data: bytes) -> Any:
    """Decode one request.

    Args:
        data: JSON text; what is not UTF-8 in it counts as U+FFFD.

    Returns:
        A SendEventRequest.

    Raises:
        ValueError: With the words of encoding/json where it is JSON cut short, in its manner otherwise.
    """
    text = data.decode("utf-8", "replace")
    try:
        value = json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(_go_words(text, error)) from None
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    request = SendEventRequest()
    _fill(request, value, _REQUEST)
    return request


def encode_json_answer(answer: Any) -> bytes:
    """Encode a SendEventResponse: enums as numbers, fields of value zero left out, <, > and & escaped."""
    fields: dict[str, Any] = {}
    for name in ("status", "code", "sent_time", "reason"):
        if value := getattr(answer, name):
            fields[name] = value
    if answer.data:
        fields["data"] = dict(sorted(answer.data.items()))
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPES).encode()


_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}

_Setter = Callable[[Any, Any], None]


class _Object(list[tuple[str, Any]]):
    """A JSON object with its members in order: names that differ in case only can meet in one field."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"invalid character {name[0]!r} looking for beginning of value")


def _go_words(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos :].strip(" \t\r\n")
    if not rest or "Unterminated" in error.msg:
        return "unexpected end of JSON input"
    return f"invalid character {rest[0]!r}: {error.msg}"


def _fill(message: Any, value: Any, setters: dict[str, _Setter]) -> None:
    if value is None:
        return
    if not isinstance(value, _Object):
        raise _mismatch(value, message.DESCRIPTOR.name)
    for name, member in value:
        setter = setters.get(name.casefold())
        if setter is not None and member is not None:
            setter(message, member)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, field)
    if value.isascii():
        return value
    # A lone surrogate, written as an escape, becomes U+FFFD.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _integer(value: Any, field: str, allowed: range) -> int:
    if type(value) is not int or value not in allowed:
        raise _mismatch(value, field)
    return value


def _bytes(value: Any, field: str) -> bytes:
    encoded = _text(value, field).replace("\r", "").replace("\n", "")
    try:
        if len(encoded) % 4:
            raise binascii.Error("incomplete")
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise ValueError("illegal base64 data") from None


def _mismatch(value: Any, field: str) -> ValueError:
    kind = "object" if isinstance(value, _Object) else type(value).__name__
    return ValueError(f"json: cannot unmarshal {kind} into field {field}")


def _set_req_guid(request: Any, value: Any) -> None:
    request.req_guid = _text(value, "req_guid")


def _set_sent_time(request: Any, value: Any) -> None:
    request.sent_time.SetInParent()
    _fill(request.sent_time, value, _TIMESTAMP)


def _set_events(request: Any, value: Any) -> None:
    if not isinstance(value, list) or isinstance(value, _Object):
        raise _mismatch(value, "events")
    del request.events[:]
    for member in value:
        _fill(request.events.add(), member, _EVENT)


def _set_seconds(timestamp: Any, value: Any) -> None:
    timestamp.seconds = _integer(value, "sent_time.seconds", _INT64)


def _set_nanos(timestamp: Any, value: Any) -> None:
    timestamp.nanos = _integer(value, "sent_time.nanos", _INT32)


def _set_event_bytes(event: Any, value: Any) -> None:
    event.event_bytes = _bytes(value, "events.event_bytes")


def _set_type(event: Any, value: Any) -> None:
    event.type = _text(value, "events.type")


_REQUEST: dict[str, _Setter] = {"req_guid": _set_req_guid, "sent_time": _set_sent_time, "events": _set_events}
_TIMESTAMP: dict[str, _Setter] = {"seconds": _set_seconds, "nanos": _set_nanos}
_EVENT: dict[str, _Setter] = {"event_bytes": _set_event_bytes, "type": _set_type}
