"""Reads WebSocket frames on the server's side as gorilla/websocket 1.5.0 does (`Conn.advanceFrame`); writes frames."""

from __future__ import annotations

import struct
from typing import NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "BrokenFrame", "FrameReader", "Message", "close_payload", "frame"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_CONTINUATION = 0
_PROTOCOL_ERROR = 1002
_MAX_CONTROL_BYTES = 125
_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1014)))


class Message(NamedTuple):
    """A complete message, or a control frame.

    Attributes:
        opcode: TEXT, BINARY, CLOSE, PING or PONG.
        data: The payload; for CLOSE, the payload of the answering close frame.
    """

    opcode: int
    data: bytes


class BrokenFrame(Exception):
    """A frame that makes gorilla end the connection.

    Attributes:
        close: The payload of the close frame that gorilla sends first; None if it sends none.
    """

    def __init__(self, close: bytes | None = None) -> None:
        super().__init__("" if close is None else close[2:].decode("utf-8", "replace"))
        self.close = close


class FrameReader:
    """Extracts messages from the bytes of a connection.

    Args:
        max_bytes: The largest message accepted; gorilla has no limit with the server's settings.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._needed = 2
        self._fragments: list[bytes] = []
        self._fragments_bytes = 0
        self._opcode = 0  # of the current fragmented message; 0 if there is none

    def feed(self, data: bytes) -> None:
        """Add bytes read from the connection."""
        self._buffer += data

    @property
    def is_too_large(self) -> bool:
        """Whether a message has grown beyond `max_bytes`."""
        return len(self._buffer) + self._fragments_bytes > self._max_bytes

    def take(self) -> Message | None:
        """The next message; None while it is incomplete.

        Raises:
            BrokenFrame: Gorilla ends the connection.
        """
        while True:
            taken = self._take_frame()
            if taken is None:
                return None
            opcode, is_final, payload = taken
            if opcode >= CLOSE:
                return Message(opcode, _close_answer(payload) if opcode == CLOSE else payload)
            if is_final and opcode != _CONTINUATION:
                return Message(opcode, payload)
            self._fragments.append(payload)
            self._fragments_bytes += len(payload)
            if opcode != _CONTINUATION:
                self._opcode = opcode
            if is_final:
                message = Message(self._opcode, b"".join(self._fragments))
                self._fragments.clear()
                self._fragments_bytes = self._opcode = 0
                return message

    def _take_frame(self) -> tuple[int, bool, bytes] | None:
        buffer = self._buffer
        if len(buffer) < self._needed:
            return None
        first, second = buffer[0], buffer[1]
        opcode, length = first & 15, second & 127
        self._check(first, second, opcode, length)
        start = 6
        if length == 126:
            if len(buffer) < 4:
                return None
            start = 8
            length = buffer[2] << 8 | buffer[3]
        elif length == 127:
            if len(buffer) < 10:
                return None
            start = 14
            (length,) = struct.unpack_from("!Q", buffer, 2)
            if length >= 1 << 63:
                raise BrokenFrame
        end = start + length
        if len(buffer) < end:
            self._needed = min(end, self._max_bytes)
            return None
        self._needed = 2
        with memoryview(buffer) as view:
            key = bytes(view[start - 4 : start])
            # The function is typed for bytes; passing a memoryview saves a copy of a large message.
            payload = apply_mask(view[start:end], key) if length else b""
        del buffer[:end]
        return opcode, bool(first & 128), payload

    def _check(self, first: int, second: int, opcode: int, length: int) -> None:
        if first & 0x70 == 0 and second & 128 and opcode == BINARY and not self._opcode:
            return
        errors = [f"RSV{3 - bit} set" for bit in (2, 1, 0) if first >> 4 + bit & 1]
        if opcode in (CLOSE, PING, PONG):
            if length > _MAX_CONTROL_BYTES:
                errors.append("len > 125 for control")
            if not first & 128:
                errors.append("FIN not set on control")
        elif opcode in (TEXT, BINARY):
            if self._opcode:
                errors.append("data before FIN")
        elif opcode == _CONTINUATION:
            if not self._opcode:
                errors.append("continuation after FIN")
        else:
            errors.append(f"bad opcode {opcode}")
        if not second & 128:
            errors.append("bad MASK")
        if errors:
            raise _protocol_error(", ".join(errors))


def frame(opcode: int, payload: bytes) -> bytes:
    """A complete, unmasked frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame."""
    return struct.pack("!H", code) + reason.encode()


def _close_answer(payload: bytes) -> bytes:
    """The payload of the answer to a close frame: its code, or nothing."""
    if len(payload) < 2:
        return b""
    (code,) = struct.unpack_from("!H", payload)
    if code not in _CLOSE_CODES and not 3000 <= code <= 4999:
        raise _protocol_error(f"bad close code {code}")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise _protocol_error("invalid utf8 payload in close frame") from None
    return payload[:2]


def _protocol_error(words: str) -> BrokenFrame:
    return BrokenFrame(close_payload(_PROTOCOL_ERROR, words)[:_MAX_CONTROL_BYTES])
