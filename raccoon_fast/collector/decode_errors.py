"""Errors raised while a request is decoded."""

from __future__ import annotations

__all__ = ["HandlerPanic", "MalformedRequest"]


class MalformedRequest(ValueError):
    """A request that cannot be decoded.

    Attributes:
        req_guid: The guid that the decoder had read before it failed; a WebSocket answer carries it.
    """

    def __init__(self, reason: str, req_guid: str = "") -> None:
        super().__init__(reason)
        self.req_guid = req_guid


class HandlerPanic(Exception):
    """A request that makes the server's handler panic: the server closes the connection without an answer."""
