"""The complete data of the last large events; the rest of the inspector keeps only the beginning."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["MAX_WHOLE_BYTES", "WholeData"]

#: Of events with more data than this, only the beginning is kept.
MAX_WHOLE_BYTES = 4 << 20

_MAX_BYTES = 32 << 20


class WholeData:
    """Up to 32 MiB; the oldest make room.

    Not thread-safe: the journal's lock guards it.
    """

    def __init__(self) -> None:
        self._data: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0

    def add(self, number: int, data: bytes) -> None:
        """Keep the data of the event with this number, if it is not too large."""
        if len(data) > MAX_WHOLE_BYTES:
            return
        self._data[number] = data
        self._bytes += len(data)
        while self._bytes > _MAX_BYTES:
            self._bytes -= len(self._data.popitem(last=False)[1])

    def get(self, number: int) -> bytes | None:
        """The data of an event; None if it is not kept."""
        return self._data.get(number)
