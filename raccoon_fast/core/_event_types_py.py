"""The tally of event types in pure Python."""

from __future__ import annotations

from raccoon_fast.core._wire_py import skip_field, take_length, take_tag
from raccoon_fast.errors import DecodeError

__all__ = ["tally_types"]

# google.protobuf's limit on nested messages and groups; an event is one level.
_MAX_DEPTH = 100


def tally_types(request: bytes) -> dict[str, tuple[int, int]]:
    """Count the events of a SendEventRequest in protobuf's wire format by their type.

    Args:
        request: The whole message. Its events are field 3. The type is field 2 of an event, "" if it is missing. Other
            fields are skipped.

    Returns:
        For each type, in order of appearance: the number of its events, and the index of its last event in the request.

    Raises:
        DecodeError: The request is malformed or cut off, or a type is not UTF-8.
        TypeError: `request` is not bytes.
    """
    if type(request) is not bytes:
        raise TypeError(f"a request should be bytes, not {type(request).__name__}")
    tally: dict[bytes, tuple[int, int]] = {}
    index = pos = 0
    end = len(request)
    while pos < end:
        tag, pos = (0x1A, pos + 1) if request[pos] == 0x1A else take_tag(request, pos, end)
        if tag != 0x1A:
            pos = skip_field(request, pos, end, tag, _MAX_DEPTH)
            continue
        length, pos = take_length(request, pos, end)
        stop = pos + length
        name = b""
        while pos < stop:
            tag = request[pos]
            if tag == 0x12 or tag == 0x0A:
                pos += 1
            else:
                tag, pos = take_tag(request, pos, stop)
            if tag == 0x12:
                length, pos = take_length(request, pos, stop)
                name = request[pos : pos + length]
                pos += length
            elif tag == 0x0A:
                length, pos = take_length(request, pos, stop)
                pos += length
            else:
                pos = skip_field(request, pos, stop, tag, _MAX_DEPTH - 1)
        count, _ = tally.get(name, (0, 0))
        tally[name] = (count + 1, index)
        index += 1
    try:
        return {name.decode(): found for name, found in tally.items()}
    except UnicodeDecodeError as error:
        raise DecodeError(f"an event's type is not UTF-8: {error}") from error
