"""Finds a WebSocket server's answers in its data. Also compiled, as _frames_c, with the C types in _frames_c.pxd."""

from __future__ import annotations

from raccoon_fast.core.answers import decode_json_answer, decode_proto_answer
from raccoon_fast.errors import DecodeError
from raccoon_fast.events import Response

__all__ = ["AnswerReader"]

# The first byte of a frame (RFC 6455, 5.2): 0x80 if it is the last of its message, and the opcode.
_WHOLE_TEXT = 0x81
_WHOLE_BINARY = 0x82
_PING = 0x89
_PONG = 0x8A


class AnswerReader:
    """Cuts a WebSocket server's data into frames, and decodes the answers among them.

    Servers write each answer as one frame, unmasked and under 64 KiB. All other frames are returned as they came, for
    a full parser. From the first frame on that is neither such an answer nor a ping or pong, all data is for that
    parser: it may be a fragment or a Close, and what follows depends on it.

    Not thread-safe: it belongs to its connection's event loop.
    """

    __slots__ = ("_gave_up", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._gave_up = False

    def feed(self, data: bytes) -> list[Response | DecodeError | bytes]:
        """Take received data, and return what has come whole, in order.

        Returns:
            Responses: a binary frame is decoded as protobuf, a text frame as JSON. bytes: data for a full parser. A
            DecodeError is the last item: an answer is malformed, and the data after it is dropped.

        Raises:
            TypeError: `data` is not bytes.
        """
        if type(data) is not bytes:
            raise TypeError(f"data should be bytes, not {type(data).__name__}")
        if self._gave_up:
            return [data] if data else []
        stream = self._rest + data if self._rest else data
        self._rest = b""
        items: list[Response | DecodeError | bytes] = []
        at = 0
        size = len(stream)
        while at < size - 1:  # a frame's length may be read
            first = stream[at]
            length = stream[at + 1]
            header = 2
            is_answer = first in (_WHOLE_BINARY, _WHOLE_TEXT)
            if length > 126 or not (is_answer or first in (_PING, _PONG)):
                self._gave_up = True
                items.append(stream[at:])
                return items
            if length == 126:
                if size - at < 4:
                    break
                header = 4
                length = stream[at + 2] << 8 | stream[at + 3]
            end = at + header + length
            if end > size:
                break
            if is_answer:
                answer = stream[at + header : end]
                try:
                    items.append(decode_proto_answer(answer) if first == _WHOLE_BINARY else decode_json_answer(answer))
                except DecodeError as error:
                    items.append(error)
                    return items
            else:
                items.append(stream[at:end])
            at = end
        if at < size:
            self._rest = stream[at:]
        return items
