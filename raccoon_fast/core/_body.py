"""Reads events back out of a request's body. The body is the events in wire format, without the request's head and end.

Not on the hot path: a batch is read back only if a server refused it or it is needed in another wire format.
"""

from __future__ import annotations

from base64 import b64decode

from raccoon_fast import json_codec
from raccoon_fast.core.wire import take_length, take_tag
from raccoon_fast.errors import DecodeError

__all__ = ["read_json_body", "read_proto_body"]


def read_proto_body(body: bytes) -> list[tuple[str, bytes]]:
    """Read SendEventRequest.events (3): Event.event_bytes (1), left out when empty, and Event.type (2).

    Raises:
        DecodeError: The body is not in the form that an envelope writes.
    """
    events = []
    pos, size = 0, len(body)
    while pos < size:
        _, pos = _take(body, pos, size, 0x1A)
        length, pos = take_length(body, pos, size)
        end = pos + length
        data = b""
        tag, after = take_tag(body, pos, end)
        if tag == 0x0A:
            length, pos = take_length(body, after, end)
            data = body[pos : pos + length]
            pos += length
        _, pos = _take(body, pos, end, 0x12)
        length, pos = take_length(body, pos, end)
        if pos + length != end:
            raise DecodeError("an event goes on behind its type")
        events.append((_text(body[pos:end]), data))
        pos = end
    return events


def read_json_body(body: bytes) -> list[tuple[str, bytes]]:
    """Read the elements of "events", separated by commas.

    Raises:
        DecodeError: The body is not in the form that an envelope writes.
    """
    try:
        events = json_codec.loads(b"[%b]" % body)
        return [(event["type"], b64decode(event["event_bytes"], validate=True)) for event in events]
    except (ValueError, TypeError, KeyError) as error:
        raise DecodeError(f"not the events of a JSON request: {error}") from None


def _take(body: bytes, pos: int, end: int, expected: int) -> tuple[int, int]:
    tag, after = take_tag(body, pos, end)
    if tag != expected:
        raise DecodeError(f"expected the tag {expected}, not {tag}")
    return tag, after


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("an event's type is not UTF-8") from None
