"""The pure-Python decoder of answers. The compiled decoder leaves unusual and malformed answers to it."""

from __future__ import annotations

from raccoon_fast import json_codec
from raccoon_fast.core import _wire_py as wire
from raccoon_fast.errors import DecodeError
from raccoon_fast.events import Code, Response, Status

__all__ = ["MAX_ANSWER_BYTES", "decode_json_answer", "decode_proto_answer"]

# A server's answers are under 1 KiB. The limit keeps a peer that is no Raccoon server from filling the memory.
MAX_ANSWER_BYTES = 1 << 20

# google.protobuf's limit on nested messages and groups. It protects against input made to exhaust memory.
_MAX_DEPTH = 100

# Indexed by number. A look-up here is several times cheaper than calling the enum.
_STATUSES = tuple(Status)
_CODES = tuple(Code)
_2_TO_31 = 1 << 31
_2_TO_32 = 1 << 32
_2_TO_63 = 1 << 63
_2_TO_64 = 1 << 64
_new = tuple.__new__


def decode_proto_answer(data: bytes) -> Response:
    """Decode a SendEventResponse in protobuf's wire format, as google.protobuf decodes it.

    Skips unknown fields, and known fields with a wrong wire type. If a field occurs several times, the last value
    counts. Keeps an enum number that has no name here.

    Args:
        data: The whole message. b"" is a message whose fields are all zero.

    Raises:
        DecodeError: `data` is malformed, cut off or over `MAX_ANSWER_BYTES`, or a text in it is not UTF-8.
        TypeError: `data` is not bytes.
    """
    _check(data)
    return _take_answer(data)


def decode_json_answer(data: bytes) -> Response:
    """Decode a SendEventResponse in the JSON that the server writes: snake_case names, enums as numbers.

    A field that is missing or null is zero. Skips unknown fields.

    Args:
        data: The whole text, UTF-8.

    Raises:
        DecodeError: `data` is not JSON, not an object or over `MAX_ANSWER_BYTES`, or a field has a wrong type or is
            out of range.
        TypeError: `data` is not bytes.
    """
    _check(data)
    try:
        answer = json_codec.loads(data)
    except json_codec.JSONDecodeError as error:
        raise DecodeError(f"an answer should be a JSON object: {error}") from error
    if not isinstance(answer, dict):
        raise DecodeError(f"an answer should be a JSON object, not {_json_name(answer)}")
    entries = answer.get("data")
    if entries is None:
        entries = {}
    elif not isinstance(entries, dict):
        raise DecodeError(f"an answer's data should be an object, not {_json_name(entries)}")
    for name, value in entries.items():
        if not isinstance(value, str):
            raise DecodeError(f"an answer's data should hold text, not {_json_name(value)} ({name!r})")
    reason = answer.get("reason")
    if reason is None:
        reason = ""
    elif not isinstance(reason, str):
        raise DecodeError(f"an answer's reason should be text, not {_json_name(reason)}")
    status = _status(_number(answer, "status", _2_TO_31))
    code = _code(_number(answer, "code", _2_TO_31))
    return _new(Response, (status, code, _number(answer, "sent_time", _2_TO_63), reason, entries))


def _check(data: object) -> None:
    if type(data) is not bytes:
        raise TypeError(f"an answer should be bytes, not {type(data).__name__}")
    if len(data) > MAX_ANSWER_BYTES:
        raise DecodeError(f"an answer of {len(data)} bytes is over the limit of {MAX_ANSWER_BYTES}")


def _take_answer(data: bytes) -> Response:
    status = _STATUSES[0]
    code = _CODES[0]
    sent_time = 0
    reason = ""
    entries: dict[str, str] = {}
    pos = 0
    end = len(data)
    while pos < end:
        tag, pos = wire.take_tag(data, pos, end)
        if tag == 0x08:
            value, pos = wire.take_varint(data, pos, end)
            status = _status(_signed_32(value))
        elif tag == 0x10:
            value, pos = wire.take_varint(data, pos, end)
            code = _code(_signed_32(value))
        elif tag == 0x18:
            value, pos = wire.take_varint(data, pos, end)
            sent_time = _signed_64(value)
        elif tag == 0x22:
            length, pos = wire.take_length(data, pos, end)
            reason = _text(data, pos, pos + length)
            pos += length
        elif tag == 0x2A:
            length, pos = wire.take_length(data, pos, end)
            _take_entry(data, pos, pos + length, entries)
            pos += length
        else:
            pos = wire.skip_field(data, pos, end, tag, _MAX_DEPTH)
    return _new(Response, (status, code, sent_time, reason, entries))


def _take_entry(data: bytes, pos: int, end: int, entries: dict[str, str]) -> None:
    # A map entry is a message with a key (field 1) and a value (field 2); a missing one is "". If an entry holds any
    # other field, google.protobuf treats the whole entry as an unknown field.
    whole = True
    name = ""
    text = ""
    while pos < end:
        tag, pos = wire.take_tag(data, pos, end)
        if tag == 0x0A:
            length, pos = wire.take_length(data, pos, end)
            name = _text(data, pos, pos + length)
            pos += length
        elif tag == 0x12:
            length, pos = wire.take_length(data, pos, end)
            text = _text(data, pos, pos + length)
            pos += length
        else:
            pos = wire.skip_field(data, pos, end, tag, _MAX_DEPTH - 1)
            whole = False
    if whole:
        entries[name] = text


def _text(data: bytes, start: int, end: int) -> str:
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"a text field is not UTF-8: {error}") from error


def _signed_32(value: int) -> int:
    low = value & (_2_TO_32 - 1)
    return low - _2_TO_32 if low >> 31 else low


def _signed_64(value: int) -> int:
    return value - _2_TO_64 if value >> 63 else value


def _status(number: int) -> Status:
    return _STATUSES[number] if 0 <= number < len(_STATUSES) else Status(number)


def _code(number: int) -> Code:
    return _CODES[number] if 0 <= number < len(_CODES) else Code(number)


def _number(answer: dict[str, object], name: str, limit: int) -> int:
    value = answer.get(name)
    if value is None:
        return 0
    if type(value) is not int:
        raise DecodeError(f"an answer's {name} should be a whole number, not {_json_name(value)}")
    if not -limit <= value < limit:
        raise DecodeError(f"an answer's {name} is out of range: {value}")
    return value


def _json_name(value: object) -> str:
    return {dict: "an object", list: "an array", str: "text", bool: "a boolean", type(None): "null"}.get(
        type(value), f"the number {value}"
    )
