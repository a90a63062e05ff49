"""Reads a server's answer to a WebSocket handshake, up to where its frames begin."""

from __future__ import annotations

import httptools

__all__ = ["HandshakeReader"]

_END_OF_HEAD = b"\r\n\r\n"
_PROTOCOL = b"HTTP/1."
# Protects from a peer that sends headers without end.
_MOST_HEAD_BYTES = 64 * 1024
# The most bytes of a refusal's body; the code does not wait for the rest.
_MOST_BODY_BYTES = 1024


class HandshakeReader:
    """Finds the head of the 101 answer, skips interim answers, and reads a refusal in any form that proxies write.

    `websockets` accepts only HTTP/1.1, treats a 103 as the final answer, and waits for the whole body of a refusal,
    which may have no length and never end, and for the end of a line that is not HTTP. So it gets only the head of a
    101.

    Attributes:
        foreign: What was received, once it is certain that no head of HTTP/1.x begins it; otherwise empty.
        status: The status of a refusal once its head has arrived; otherwise 0.
        retry_after: The refusal's Retry-After, or "".
        body: The beginning of the refusal's body.
        is_whole: Whether there is nothing more to wait for.
    """

    def __init__(self) -> None:
        self.foreign = b""
        self.status = 0
        self.retry_after = ""
        self.body = b""
        self.is_whole = False
        self._data = b""
        self._parser: httptools.HttpResponseParser | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take received data.

        Returns:
            The head of a 101, and the data after it. None until it has arrived.
        """
        if self._parser is not None:
            self._read_refusal(data)
            return None
        self._data += data
        while True:
            head, end, rest = self._data.partition(_END_OF_HEAD)
            if not _may_be_http(self._data, bool(end)):
                self.foreign = self._data
                return None
            if not end:
                return None
            status = int(head[9:12])
            if status == 101:
                if head[12:13] == b"\r":
                    head = head[:12] + b" " + head[12:]  # some proxies leave out the space before an empty reason
                return head + end, rest
            if not 100 <= status <= 199:
                break
            self._data = rest  # it only announces the answer (RFC 9110, 15.2)
        self.status = status
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_headers=True)  # folded lines (RFC 9112, 5.2)
        self._read_refusal(self._data)
        return None

    def _read_refusal(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_whole = True  # use the part that could be read

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body = (self.body + body)[:_MOST_BODY_BYTES]
        self.is_whole = len(self.body) == _MOST_BODY_BYTES

    def on_message_complete(self) -> None:
        self.is_whole = True


def _may_be_http(data: bytes, has_head: bool) -> bool:
    """Whether this is, or may become, a head whose status can be read: `HTTP/1.x NNN`, lines that end in CRLF."""
    line = data[:12]
    if not line.startswith(_PROTOCOL[: len(line)]):
        return False
    if has_head:
        return len(line) == 12 and line[8:9] == b" " and line[9:12].isdigit()
    return len(data) <= _MOST_HEAD_BYTES and b"\n" not in data.replace(b"\r\n", b"")
