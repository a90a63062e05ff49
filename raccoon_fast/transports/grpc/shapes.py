"""Recognizes answers by their bytes, because a server's answers mostly differ only in the stream and the message.

If an answer has the same frames and header blocks as an earlier one, it has the same meaning. So its bytes are compared
instead of parsed. Two of its three frames are header blocks, and parsing the three costs more than the rest of the work
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
# As HTTP2Answer(…), without a call in between.
_new_answer = tuple.__new__
# The parts of a frame's head: length, type and flags (5 bytes); then the stream (4 bytes).
_KIND, _STREAM = 5, 4
# RFC 9113, 6.1 and 6.2: no padding, no priority, each block in one frame.
_FRAMES = (
    (wire.HEADERS, wire.END_HEADERS),
    (wire.DATA, 0),
    (wire.HEADERS, wire.END_HEADERS | wire.END_STREAM),
)


class AnswerShape:
    """The bytes of an answer in three consecutive frames (head, message, trailers), without stream and message.

    Attributes:
        nbytes: The length of all three frames.
        body_bytes: The length of the message.
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
        """The shape of the answer at the start of `data`; None if the answer is incomplete or not an ordinary one.

        An ordinary answer has a head with status 200 and no content-length, and trailers with gRPC status 0.
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
            return None  # the code that parses it reports the error
        is_plain = fields[:1] == ((b":status", b"200"),) and (b"grpc-status", b"0") in trailers
        if len(ids) != 1 or not is_plain or any(name == b"content-length" for name, _ in fields):
            return None
        return cls(data, starts, at, fields, trailers)

    def stream_at(self, data: bytes, at: int) -> int:
        """The stream of the answer that begins at `at`, if it has this shape; otherwise 0."""
        stream = data[at + _KIND : at + _HEAD]
        if data.startswith(self._first + stream + self._middle + stream, at) and data.startswith(
            self._last_kind + stream + self._last, at + self._last_at
        ):
            return int.from_bytes(stream, "big")
        return 0

    def answer_at(self, data: bytes, at: int, written_s: float) -> HTTP2Answer:
        """The answer that begins at `at`; it must have this shape."""
        body = at + self._body_at
        return _new_answer(HTTP2Answer, (self._fields, data[body : body + self.body_bytes], self._trailers, written_s))
