"""HTTP answers as Go's net/http writes them."""

from __future__ import annotations

import email.utils
import functools
import http
import time
from typing import NamedTuple

from raccoon_fast.collector.go_http import Head

__all__ = ["TEXT", "Answer", "text_answer"]

TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """An answer to one request.

    Attributes:
        status: The HTTP status.
        headers: All headers but Content-Length, Date and Connection.
        body: The body; not sent in answer to HEAD.
        closes: Whether the connection is closed after the answer.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    closes: bool = False

    def closing(self) -> Answer:
        """A copy that closes the connection after it."""
        return self._replace(closes=True)

    def on_the_wire(self, head: Head) -> bytes:
        """The bytes of the answer to the request with this head."""
        connection = ""
        if head.minor == 0:
            connection = "keep-alive" if head.keeps_alive and not self.closes else ""
        elif self.closes or head.closes:
            connection = "close"
        start = _start(self.status, self.headers, len(self.body), head.minor, connection, int(time.time()))
        return start if head.method == "HEAD" else start + self.body


def text_answer(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """The answer that Go's `http.Error` writes."""
    return Answer(
        status, (("content-type", TEXT), ("x-content-type-options", "nosniff"), *headers), text.encode() + b"\n"
    )


# Answers to similar requests have the same head for one second.
@functools.lru_cache(maxsize=16)
def _start(
    status: int, headers: tuple[tuple[str, str], ...], size: int, minor: int, connection: str, now_s: int
) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = f"status code {status}"
    every = [*headers, ("content-length", str(size)), ("date", _http_date(now_s))]
    if connection:
        every.append(("connection", connection))
    lines = [f"HTTP/1.{min(minor, 1)} {status} {phrase}", *(f"{name}: {value}" for name, value in every), "", ""]
    return "\r\n".join(lines).encode("latin-1")


@functools.lru_cache(maxsize=1)
def _http_date(now_s: int) -> str:
    return email.utils.formatdate(now_s, usegmt=True)
