"""Limits the requests in flight on one connection."""

from __future__ import annotations

__all__ = ["Window"]

_ACKS_PER_STEP = 64


class Window:
    """A limit that falls to 1 when publishing fails, and recovers one by one.

    A Raccoon that dedups by connection and acknowledges after publishing crashes if several requests of one connection
    fail at once (it writes its map of seen guids under a read lock). So after an INTERNAL_ERROR a connection carries
    one request at a time. Each 64 acknowledgements in a row allow one more.

    Args:
        size: The normal limit, 1 or more.
    """

    __slots__ = ("_acks", "_size", "is_narrow", "limit")

    def __init__(self, size: int) -> None:
        self._size = size
        self._acks = 0
        #: The number of requests that may be in flight now.
        self.limit = size
        #: Whether this is below the normal limit: only then `succeeded` has work to do.
        self.is_narrow = False

    def failed(self) -> None:
        """An INTERNAL_ERROR came."""
        self.limit = 1
        self.is_narrow = self._size > 1
        self._acks = 0

    def succeeded(self) -> None:
        """An acknowledgement came."""
        if self.limit < self._size:
            self._acks += 1
            if self._acks >= _ACKS_PER_STEP:
                self._acks = 0
                self.limit += 1
                self.is_narrow = self.limit < self._size
