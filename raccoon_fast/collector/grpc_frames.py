"""Lets payloads of large messages bypass h2, which spends more time on a DATA frame than the rest of a call takes."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator

__all__ = ["DATA_WINDOW_BYTES", "FrameSplitter", "window_update"]

#: Bytes that may bypass h2 before a window update acknowledges them, per stream and over all streams.
DATA_WINDOW_BYTES = 256 << 10

_PREFACE_BYTES = 24
_HEAD_BYTES = 9
_MAX_FRAME_BYTES = 16384  # grpc-go's SETTINGS_MAX_FRAME_SIZE, which is the default
_DATA, _HEADERS, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 8, 9
_END_STREAM, _END_HEADERS, _PADDED = 1, 4, 8


class FrameSplitter:
    """Splits a connection's bytes into bytes for h2 and payloads of DATA frames that bypass h2.

    Args:
        streams: The streams whose DATA frames bypass h2: open, and not ended by the client.
    """

    def __init__(self, streams: Container[int]) -> None:
        self._streams = streams
        self._rest = b""
        self._preface_left = _PREFACE_BYTES
        self._is_in_headers = False

    def split(self, data: bytes) -> Iterator[tuple[int, bytes | memoryview, bool]]:
        """Yield (stream, payload, whether it is the last), or stream 0 with complete frames for h2, in wire order.

        h2 also gets a frame that ends its stream, but after the payload and without it. `streams` is consulted for each
        frame, so handle each item before you take the next.
        """
        if self._rest:
            data = self._rest + data
        view = memoryview(data)
        at = start = 0  # h2 gets the bytes from start to at
        if self._preface_left:
            at = min(self._preface_left, len(data))
            self._preface_left -= at
        while len(data) - at >= _HEAD_BYTES:
            size = int.from_bytes(view[at : at + 3], "big")
            kind, flags = data[at + 3], data[at + 4]
            if size > _MAX_FRAME_BYTES:
                at = len(data)  # h2 refuses the frame
                break
            end = at + _HEAD_BYTES + size
            if end > len(data):
                break
            if kind == _DATA and size and not flags & _PADDED and not self._is_in_headers:
                if start < at:  # those bytes may open the stream
                    yield 0, view[start:at], False
                    start = at
                stream_id = int.from_bytes(view[at + 5 : at + 9], "big") & 0x7FFFFFFF
                if stream_id in self._streams:
                    is_last = bool(flags & _END_STREAM)
                    yield stream_id, view[at + _HEAD_BYTES : end], is_last
                    if is_last:
                        yield 0, b"\0\0\0" + data[at + 3 : at + _HEAD_BYTES], False
                    start = end
            elif kind in (_HEADERS, _CONTINUATION):
                self._is_in_headers = not flags & _END_HEADERS
            at = end
        self._rest = data[at:]
        if start < at:
            yield 0, view[start:at], False


def window_update(stream_id: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame (RFC 9113, section 6.9)."""
    return struct.pack("!HBBBII", 0, 4, _WINDOW_UPDATE, 0, stream_id, size)
