"""Decodes chunked request bodies as Go 1.22 does (`net/http/internal/chunked.go` and `body.readTrailer`)."""

from __future__ import annotations

from raccoon_fast.collector.go_http import RefusedHead, parse_trailer

__all__ = ["ChunkedBody"]

_MAX_LINE_BYTES = 4096
_MAX_EXCESS_BYTES = 16 << 10
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ChunkedBody:
    """Decodes one chunked body from data that arrives in pieces.

    Attributes:
        data: The body read so far.
        is_complete: Whether the last chunk and the trailer have been read.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_complete = False
        self._left = -1  # bytes left in the current chunk; -1 before its length line
        self._excess = 0

    def feed(self, buffer: bytearray) -> None:
        """Remove the bytes that belong to the body from the start of `buffer`.

        Raises:
            ValueError: Go refuses the body.
        """
        while not self.is_complete:
            if self._left < 0:
                if not self._take_line(buffer):
                    return
            elif self._left:
                chunk = buffer[: self._left]
                del buffer[: len(chunk)]
                self.data += chunk
                self._left -= len(chunk)
                if self._left:
                    return
            elif len(buffer) < 2:
                return
            elif buffer[:2] != b"\r\n":
                raise ValueError("malformed chunked encoding")
            else:
                del buffer[:2]
                self._left = -1

    def _take_line(self, buffer: bytearray) -> bool:
        """Read a chunk's length line, and the trailer after the last chunk. Returns False until more data arrives."""
        end = buffer.find(b"\n", 0, _MAX_LINE_BYTES)
        if end < 0:
            if len(buffer) >= _MAX_LINE_BYTES:
                raise ValueError("header line too long")
            return False
        digits = buffer[:end].rstrip(b" \t\r\n").partition(b";")[0]
        if not digits or len(digits) > 16 or not _HEX.issuperset(digits):
            raise ValueError("invalid byte in chunk length")
        size = int(digits, 16)
        if size == 0:
            return self._take_trailer(buffer, end + 1)
        self._excess = max(0, self._excess + end + 2 - 16 - 2 * size)
        if self._excess > _MAX_EXCESS_BYTES:
            raise ValueError("chunked encoding contains too much non-data")
        del buffer[: end + 1]
        self._left = size
        return True

    def _take_trailer(self, buffer: bytearray, start: int) -> bool:
        if buffer[start : start + 2] == b"\r\n":
            end = start + 2
        else:
            if len(buffer) < start + 2:
                return False
            # Go looks for CRLF CRLF before it parses the trailer. The trailer may end earlier, with bare line feeds.
            known = buffer.find(b"\r\n\r\n", start, start + _MAX_LINE_BYTES) + 4
            if known < 4:
                if len(buffer) >= start + _MAX_LINE_BYTES:
                    raise ValueError("suspiciously long trailer after chunked body")
                return False
            try:
                end = start + parse_trailer(bytes(buffer[start:known]))
            except RefusedHead:
                raise ValueError("malformed trailer after chunked body") from None
        del buffer[:end]
        self.is_complete = True
        return True
