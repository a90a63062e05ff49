"""Knows answers by their bytes: a server answers most calls alike, but for the stream and the message.

What has the same header blocks as an answer that was read, in the same frames, means the same. So they are compared in
place of being read: two of three frames are header blocks, and reading all three costs more than all else that is done
for an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast.transports.grpc import frames as wire
from raccoon_fast.transports.grpc.streams import HTTP2Answer

if TYPE_CHECKING:
    from raccoon_fast.transports.grpc.frames import Fields

__all__ = ["AnswerShape"]

_HEAD = wire.FRAME_HEAD.size
# Of a frame's head: length, type and flags; then the stream.
_KIND, _STREAM = 5, 4
# RFC 9113, 6.1 and 6.2: not padded, without a priority, each block in one frame.
_FRAMES = (
    (wire.HEADERS, wire.END_HEADERS),
    (wire.DATA, 0),
    (wire.HEADERS, wire.END_HEADERS | wire.END_STREAM),
)


class AnswerShape:
    """An answer in three frames that follow one another: head, message, trailers.

    Attributes:
        nbytes: Of all three.
        body_bytes: Of the message.
    """

    __slots__ = (
        "_body_at",
        "_fields",
        "_first",
        "_last",
        "_last_at",
        "_last_kind",
        "_middle",
        "_trailers",
        "body_bytes",
        "nbytes",
    )

    def __init__(self, data: bytes, starts: list[int], end: int, fields: Fields, trailers: Fields) -> None:
        first, second, third = starts
        self._first = data[first : first + _KIND]
        self._middle = data[first + _HEAD : second + _KIND]
        self._last_kind = data[third : third + _KIND]
        self._last = data[third + _HEAD : end]
        self._body_at = second + _HEAD - first
        self._last_at = third - first
        self._fields = fields
        self._trailers = trailers
        self.body_bytes = third - second - _HEAD
        self.nbytes = end - first

    @classmethod
    def of(cls, data: bytes) -> AnswerShape | None:
        """The shape of the answer that `data` begins with; None if it is not whole, or not an ordinary one.

        Only a head of status 200 without a content-length, and trailers with a gRPC status of 0, are ordinary.
        """
        at = 0
        while (end := wire.frame_end(data, at)) <= len(data) and data[at + 3] not in (wire.HEADERS, wire.DATA):
            at = end
        starts = []
        for kind, flags in _FRAMES:
            end = wire.frame_end(data, at)
            if end > len(data) or data[at + 3] != kind or data[at + 4] != flags:
                return None
            starts.append(at)
            at = end
        ids = {data[start + _KIND : start + _HEAD] for start in starts}
        try:
            fields = wire.read_block(data[starts[0] + _HEAD : starts[1]])
            trailers = wire.read_block(data[starts[2] + _HEAD : at])
        except (wire.FrameError, wire.MalformedError):
            return None  # whoever reads it says so
        is_plain = fields[:1] == ((b":status", b"200"),) and (b"grpc-status", b"0") in trailers
        if len(ids) != 1 or not is_plain or any(name == b"content-length" for name, _ in fields):
            return None
        return cls(data, starts, at, fields, trailers)

    def stream_at(self, data: bytes, at: int) -> int:
        """The stream of the answer of this shape that begins at `at`; 0 if there is none."""
        stream = data[at + _KIND : at + _HEAD]
        if data.startswith(self._first + stream + self._middle + stream, at) and data.startswith(
            self._last_kind + stream + self._last, at + self._last_at
        ):
            return int.from_bytes(stream, "big")
        return 0

    def answer_at(self, data: bytes, at: int, written_s: float) -> HTTP2Answer:
        """The answer of this shape that begins at `at`."""
        body = at + self._body_at
        return HTTP2Answer(self._fields, data[body : body + self.body_bytes], self._trailers, written_s)
