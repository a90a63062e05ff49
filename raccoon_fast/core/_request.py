"""The limits, the checks of arguments and the request heads that both forms of the envelope share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from raccoon_fast import json_codec
from raccoon_fast.core.wire import encode_varint
from raccoon_fast.errors import MessageTooLargeError

__all__ = [
    "HEADROOM",
    "MAX_EVENTS_BYTES",
    "MAX_FRAME_HEADER_BYTES",
    "MAX_GUID_BYTES",
    "check_capacity",
    "check_events",
    "check_events_size",
    "encode_json_head",
    "encode_proto_head",
    "encode_websocket_header",
    "json_head_bound",
    "json_text",
    "pair_of",
    "proto_head_bound",
    "refuse_batch",
    "refuse_data",
    "refuse_event",
    "refuse_type",
]

HEADROOM = 1024
"""Bytes kept free in front of the events, for the request's own head plus an HTTP head or a frame header."""

MAX_GUID_BYTES = 1024
"""The longest req_guid in UTF-8 bytes; a UUID's text has 36. Every attempt sends the guid, so it must be short."""

# A protobuf message has at most 2 GiB - 1. The 8192 bytes kept back are more than any head, so stamping never fails.
MAX_EVENTS_BYTES = 2**31 - 1 - 8192
"""The most bytes that the events of one request may take in wire format."""

MAX_FRAME_HEADER_BYTES = 14
"""The longest client frame header: 2 bytes, a 64-bit length, a masking key (RFC 6455, section 5.2)."""

# google.protobuf.Timestamp: years 1 to 9999.
_MIN_SECONDS = -62_135_596_800
_MAX_SECONDS = 253_402_300_799


def encode_proto_head(req_guid: str, seconds: int, nanos: int) -> bytes:
    """Encode SendEventRequest's req_guid (1) and sent_time (2). Zero values are left out, as in google.protobuf.

    Raises:
        TypeError: `req_guid` is not a str, or a time is not an int.
        ValueError: The guid is over `MAX_GUID_BYTES` or not UTF-8, or the time is out of Timestamp's range.
    """
    guid = _guid_bytes(req_guid)
    _check_time(seconds, nanos)
    time = b""
    if seconds:
        time = b"\x08" + encode_varint(seconds)
    if nanos:
        time += b"\x10" + encode_varint(nanos)
    head = b"\x12%c%b" % (len(time), time)
    return b"\x0a%b%b%b" % (encode_varint(len(guid)), guid, head) if guid else head


def proto_head_bound(req_guid: str) -> int:
    """Return the most bytes that `encode_proto_head` returns for this guid, whatever the time."""
    size = len(_guid_bytes(req_guid))
    # The tag and length of sent_time take 2 bytes; with their tags, seconds take up to 11 (when negative), nanos 6.
    return (1 + len(encode_varint(size)) + size if size else 0) + 2 + 11 + 6


def encode_json_head(req_guid: str, seconds: int, nanos: int) -> bytes:
    """Encode the JSON request up to its first event. The errors are those of `encode_proto_head`."""
    _guid_bytes(req_guid)
    _check_time(seconds, nanos)
    return b'{"req_guid":%b,"sent_time":{"seconds":%d,"nanos":%d},"events":[' % (json_text(req_guid), seconds, nanos)


def json_head_bound(req_guid: str) -> int:
    """Return the most bytes that `encode_json_head` returns for this guid, whatever the time."""
    return len(encode_json_head(req_guid, _MIN_SECONDS, 999_999_999))


def json_text(text: str) -> bytes:
    """Encode text as a JSON string, including the quotes. The caller guarantees that it can be encoded as UTF-8."""
    return json_codec.encode(str(text))


def encode_websocket_header(opcode: int, key: bytes, length: int) -> bytes:
    """Encode the header of a final, masked frame (RFC 6455, section 5.2).

    Raises:
        ValueError: `opcode` is neither 1 (text) nor 2 (binary), or `key` does not have 4 bytes.
        TypeError: `key` is not bytes.
    """
    if opcode not in (1, 2):
        raise ValueError(f"opcode should be 1 (text) or 2 (binary), not {opcode!r}")
    if not isinstance(key, bytes):
        raise TypeError(f"key should be bytes, not {type(key).__name__}")
    if len(key) != 4:
        raise ValueError(f"key should be 4 bytes, not {len(key)}")
    if length < 126:
        return b"%c%c%b" % (0x80 | opcode, 0x80 | length, key)
    if length < 1 << 16:
        return b"%c\xfe%b%b" % (0x80 | opcode, length.to_bytes(2, "big"), key)
    return b"%c\xff%b%b" % (0x80 | opcode, length.to_bytes(8, "big"), key)


def check_capacity(capacity: int) -> None:
    """Raise unless `capacity` is a number of bytes that an envelope can hold."""
    if not isinstance(capacity, int):
        raise TypeError(f"capacity should be a whole number of bytes, not {type(capacity).__name__}")
    if not 0 <= capacity <= MAX_EVENTS_BYTES:
        raise ValueError(f"capacity should be from 0 to {MAX_EVENTS_BYTES} bytes, not {capacity}")


def check_events_size(size: int) -> None:
    """Raise MessageTooLargeError if `size` bytes of events are more than a request may have."""
    if size > MAX_EVENTS_BYTES:
        raise MessageTooLargeError(
            f"the events would take {size} bytes of wire format, and a request has room for {MAX_EVENTS_BYTES}",
            size=size,
            limit=MAX_EVENTS_BYTES,
        )


def check_events(events: object) -> None:
    """Raise unless `events` is an iterable that may hold events. Passing a single event or a text is a mistake.

    Raises:
        TypeError: It is a single event, text, a table, or not iterable.
    """
    # An Event is a named tuple.
    if isinstance(events, (str, bytes)) or hasattr(events, "_fields") or not isinstance(events, Iterable):
        raise TypeError(f"events takes a sequence of Event(type, data), not {type(events).__name__}: [Event(…)]")
    if hasattr(events, "__arrow_c_stream__"):
        raise TypeError(
            f"events takes a sequence of Event(type, data), not {type(events).__name__}, which is a table: "
            "emit_table of a producer and send_table of a client take it"
        )


def pair_of(index: int, event: object) -> tuple[str, Any]:
    """Return the type and the data of one of many events.

    Args:
        index: Its index among the events, from 0.
        event: Event(type, data), or a tuple or list of two items.

    Raises:
        TypeError: The event is something else, or its type is not a str.
    """
    if not isinstance(event, (tuple, list)) or len(event) != 2:
        raise TypeError(f"events[{index}] must be Event(type, data) or a (type, data) pair, not {event!r:.80}")
    type_, data = event
    if not isinstance(type_, str):
        raise TypeError(f"events[{index}]: type must be a str, not {type(type_).__name__}")
    return type_, data


def check_type(type_: object) -> None:
    """Raise for an event type that a request cannot have, as an accumulator does when it accepts the event.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, or has characters that UTF-8 cannot encode.
    """
    if not isinstance(type_, str) or not type_:
        refuse_type(type_)
    type_.encode()


def place_error(error: Exception, index: int) -> None:
    """Add the position of an event among several to the message of the error that refused it."""
    if isinstance(error, UnicodeEncodeError):
        error.reason += f", in events[{index}]"  # its message is made from its attributes
    elif error.args:
        error.args = (f"events[{index}]: {error.args[0]}", *error.args[1:])


def refuse_type(type_: object) -> NoReturn:
    """Raise for an event type that is not a non-empty str."""
    if isinstance(type_, str):
        raise ValueError("an event's type should not be empty: the server routes by it")
    raise TypeError(f"an event's type should be str, not {type(type_).__name__}")


def refuse_data(data: object) -> NoReturn:
    """Raise for event data that is not bytes-like, contiguous and of one dimension."""
    if isinstance(data, memoryview):
        raise ValueError("an event's data should be a memoryview of one dimension and contiguous")
    raise TypeError(f"an event's data should be bytes, bytearray or memoryview, not {type(data).__name__}")


def refuse_event(size: int, limit: int) -> NoReturn:
    """Raise for an event that is larger than the buffer or than a request to this server can be."""
    raise MessageTooLargeError(
        f"the event takes {size} bytes of wire format, and {limit} is the most that fits into buffer_bytes and into a "
        "request to this server",
        size=size,
        limit=limit,
    )


def refuse_batch(size: int, limit: int, count: int) -> NoReturn:
    """Raise for a batch that is larger than the buffer or than a request to this server can be."""
    remedy = f"; send fewer of its {count} events at once" if count > 1 else ""
    raise MessageTooLargeError(
        f"the batch takes {size} bytes of wire format, and {limit} is the most that fits into buffer_bytes and into a "
        f"request to this server{remedy}",
        size=size,
        limit=limit,
    )


def _guid_bytes(req_guid: str) -> bytes:
    if not isinstance(req_guid, str):
        raise TypeError(f"req_guid should be str, not {type(req_guid).__name__}")
    guid = req_guid.encode()
    if len(guid) > MAX_GUID_BYTES:
        raise ValueError(f"req_guid should be at most {MAX_GUID_BYTES} bytes of UTF-8, not {len(guid)}")
    return guid


def _check_time(seconds: int, nanos: int) -> None:
    if not isinstance(seconds, int) or not isinstance(nanos, int):
        wrong = nanos if isinstance(seconds, int) else seconds
        raise TypeError(f"seconds and nanos should be whole numbers, not {type(wrong).__name__}")
    if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
        raise ValueError(f"seconds should be a time of the years 1 to 9999, not {seconds}")
    if not 0 <= nanos <= 999_999_999:
        raise ValueError(f"nanos should be from 0 to 999999999, not {nanos}")
