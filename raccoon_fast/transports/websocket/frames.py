"""Cuts a WebSocket server's data into frames (RFC 6455 5.2), so that answers need no full parser."""

from __future__ import annotations

__all__ = ["FrameCutter"]


class FrameCutter:
    """Finds the ends of frames, without reading them further.

    Answers have no masked frames, and no frames of 64 KiB or more: from the first such frame on, all data is passed on
    unchanged.
    """

    __slots__ = ("_gave_up", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._gave_up = False

    def cut(self, data: bytes) -> list[tuple[bytes, int]]:
        """Take received data.

        Returns:
            Whole frames, each with the size of its header; the rest of the data comes last, with a size of 0.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        frames: list[tuple[bytes, int]] = []
        at, size = 0, len(data)
        most = 0 if self._gave_up else size - 1  # the last place where a frame's length may be read
        while at < most:
            header, length = 2, data[at + 1]
            if length > 125:
                if length > 126:
                    self._gave_up = True
                    break
                header, length = 4, int.from_bytes(data[at + 2 : at + 4], "big")
            end = at + header + length
            if end > size:
                break
            frames.append((data[at:end], header))
            at = end
        if at < size:
            if self._gave_up:
                frames.append((data[at:], 0))
            else:
                self._rest = data[at:]
        return frames
