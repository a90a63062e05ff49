"""REST: POST /api/v1/events and GET /ping, as an ASGI application.

Plain ASGI: with two paths, answers that have to match another server's byte for byte, and bodies that are read by hand,
a framework's routing, request and response classes would have nothing left to do.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import http
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from raccoon_fast.collector import answers
from raccoon_fast.collector.fault_table import AnswerFaults, Refusal
from raccoon_fast.collector.intake import Intake, first_values, ignore, with_wrong_guid
from raccoon_fast.collector.records import REST, Request, Source
from raccoon_fast.collector.sockets import reset
from raccoon_fast.collector.websocket import EVENTS_PATH, MAX_REQUEST_BYTES

if TYPE_CHECKING:
    from raccoon_fast.collector.inspector.app import Inspector

__all__ = ["RestApp"]

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_ENCODINGS = {"application/json": answers.JSON, "application/proto": answers.PROTO}
_TEXT = "text/plain; charset=utf-8"
_NO_FAULTS = AnswerFaults()

# What Go's net/http reads of a body its handler left unread before it gives the connection up.
_MAX_UNREAD_BYTES = 256 << 10

_log = logging.getLogger("raccoon_fast.collector")


class _Answer:
    """An HTTP answer; `content_type` None leaves the header out."""

    def __init__(self, status: int, content_type: str | None, body: bytes = b"", *, closes: bool = False) -> None:
        self.status = status
        self.body = body
        self.closes = closes
        self.headers: tuple[tuple[str, str], ...] = () if content_type is None else (("content-type", content_type),)

    @classmethod
    def from_refusal(cls, refusal: Refusal, *, closes: bool = False) -> _Answer:
        answer = cls(refusal.status, None, refusal.body, closes=closes)
        answer.headers = refusal.headers
        return answer

    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        return _wire_headers(self.headers, len(self.body), int(time.time()), closes=self.closes)


class RestApp:
    """The application; one for the collector's life.

    Args:
        intake: Takes requests in.
        inspector: Answers under its own paths; None without one.
    """

    def __init__(self, intake: Intake, inspector: Inspector | None = None) -> None:
        self._intake = intake
        self._inspector = inspector
        self._last_headers: list[tuple[bytes, bytes]] = []
        self._last_source: Source | None = None

    def source_at_once(self, headers: list[tuple[bytes, bytes]]) -> Source | None:
        """Who sent a POST of events with these headers, if nothing has to be waited for to answer it; else None."""
        if not (self._intake.faults.is_empty and self._intake.publisher.is_immediate):
            return None
        if headers != self._last_headers:  # as most are that one client sends
            source = self._source(headers)
            length = source.headers.get("content-length", "")
            is_short = length.isdecimal() and int(length) <= MAX_REQUEST_BYTES
            is_known = source.headers.get("content-type") in _ENCODINGS
            self._last_headers, self._last_source = headers, source if is_short and is_known else None
        return self._last_source

    def answer_at_once(self, source: Source, data: bytes) -> bytes:
        """The whole answer to a POST of events, as `__call__` sends it."""
        content_type = source.headers["content-type"]
        encoding = _ENCODINGS[content_type]
        request = self._decode(data, encoding, source)
        if request is None:
            status, answer = 400, answers.unreadable("deserialization failure")
        else:
            self._intake.take(request, source, ignore)
            status, answer = 200, answers.success(request.req_guid)
        _log.debug("POST %s: %d", EVENTS_PATH, status)
        return _on_the_wire(_Answer(status, content_type, answers.encode_answer(answer, encoding)))

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, as ASGI has it."""
        try:
            if self._inspector is not None and self._inspector.has(scope["path"]):
                await self._inspector(scope, receive, send)
                return
            answer = await self._respond(scope, receive, send)
        except asyncio.CancelledError:
            return  # the collector is closing, and the connection is closed
        except _Disconnected:
            return
        if answer is None or scope["state"]["transport"].is_closing():
            # Returning to uvicorn without an answer before it knows of the end is an error, which it logs.
            await _wait_for_disconnect(receive)
            return
        _log.debug("%s %s: %d", scope["method"], scope["path"], answer.status)
        await _send(answer, send)

    async def _respond(self, scope: Any, receive: Receive, send: Send) -> _Answer | None:
        method, path = scope["method"], scope["path"]
        if path == "/ping":
            return _Answer(200, _TEXT, b"pong") if method == "GET" else _Answer(405, None)
        if path != EVENTS_PATH:
            if method == "POST":
                self._reject(scope, 404, f"POST {path}: 404 page not found")
            return _Answer(404, _TEXT, b"404 page not found\n")
        if method == "GET":
            self._reject(scope, 400, "GET without an upgrade to WebSocket")
            return _Answer(400, _TEXT, b"Bad Request\n")
        if method != "POST":
            self._reject(scope, 405, f"method {method}")
            return _Answer(405, None)
        return await self._events(scope, receive, send)

    async def _events(self, scope: Any, receive: Receive, send: Send) -> _Answer | None:
        faults = self._intake.faults
        if (refusal := faults.take("early_error")) is not None:
            self._reject(scope, refusal.status, "before the body was read")
            return _Answer.from_refusal(refusal, closes=True)
        source = self._source(scope["headers"])
        content_type = source.headers.get("content-type", "")
        encoding = _ENCODINGS.get(content_type)
        if encoding is None:
            self._reject(scope, 400, f"invalid content type: {content_type or 'none'}")
            body = answers.encode_answer(answers.unreadable("invalid content type"), answers.JSON)
            length = source.headers.get("content-length", "")
            is_long = not length.isdecimal() or int(length) > _MAX_UNREAD_BYTES
            return _Answer(400, content_type, body, closes=is_long)
        data = await _read_body(receive)
        if data is None or faults.limits(len(data)) is not None:
            self._reject(scope, 413, "request entity too large", data or b"")
            return _Answer(413, _TEXT, b"Request Entity Too Large\n", closes=True)
        if (refusal := faults.take("status")) is not None:
            self._reject(scope, refusal.status, refusal.body.decode("utf-8", "replace"), data)
            return _Answer.from_refusal(refusal)
        request = self._decode(data, encoding, source)
        if request is None:
            return await self._spoil(400, answers.unreadable("deserialization failure"), content_type, scope)
        del data
        reason = await self._intake.taken(request, source)
        if reason:
            answer = answers.failure(request.req_guid, f"cannot publish events: {reason}")
            return await self._spoil(500, answer, content_type, scope)
        return await self._spoil(200, answers.success(request.req_guid), content_type, scope)

    def _decode(self, data: bytes, encoding: str, source: Source) -> Request | None:
        """The request, or None where it cannot be read: that is told to the ledger."""
        try:
            return self._intake.decode(data, encoding)
        except ValueError as error:
            self._intake.ledger.rejected(source, "400", f"deserialization failure: {error}", data=data)
            return None

    def _source(self, headers: list[tuple[bytes, bytes]]) -> Source:
        fields = first_values((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        return self._intake.source(REST, fields)

    def _reject(self, scope: Any, status: int, reason: str, data: bytes = b"") -> None:
        self._intake.ledger.rejected(self._source(scope["headers"]), str(status), reason, data=data)

    async def _spoil(self, status: int, answer: Any, content_type: str, scope: Any) -> _Answer | None:
        """The answer after the faults that are switched on; None when none is to be sent."""
        faults = self._intake.faults.for_answer(owns_bytes=True) or _NO_FAULTS
        transport: asyncio.Transport = scope["state"]["transport"]
        if faults.hang_up:
            reset(transport)
        if faults.hang_up or faults.drop:
            return None
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        if transport.is_closing():
            return None
        if faults.wrong_guid:
            answer = with_wrong_guid(answer)
        spoilt = _Answer(status, content_type, answers.encode_answer(answer, _ENCODINGS[content_type]))
        if faults.body is not None:
            spoilt = _Answer(200, content_type, faults.body)
        if faults.duplicate:
            transport.write(_on_the_wire(spoilt))
        if faults.cut_bytes is not None:
            transport.write(_on_the_wire(spoilt)[: faults.cut_bytes])
            transport.close()
            return None
        return spoilt


class _Disconnected(Exception):
    """The client went away."""


async def _read_body(receive: Receive) -> bytes | None:
    """The body; None when it is too long."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_REQUEST_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks) if len(chunks) > 1 else chunk


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(answer: _Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.wire_headers()})
    await send({"type": "http.response.body", "body": answer.body})


def _on_the_wire(answer: _Answer) -> bytes:
    head = _head(answer.status, answer.headers, len(answer.body), int(time.time()), closes=answer.closes)
    return head + answer.body


# Of answers to requests of one kind, the heads are the same for a second.
@functools.lru_cache(maxsize=16)
def _head(status: int, headers: tuple[tuple[str, str], ...], size: int, now_s: int, *, closes: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode())]
    lines += [b"%s: %s" % header for header in _wire_headers(headers, size, now_s, closes=closes)]
    return b"\r\n".join([*lines, b"", b""])


def _wire_headers(
    headers: tuple[tuple[str, str], ...], size: int, now_s: int, *, closes: bool
) -> list[tuple[bytes, bytes]]:
    every = [*headers, ("content-length", str(size)), ("date", _http_date(now_s))]
    if closes:
        every.append(("connection", "close"))
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in every]


@functools.lru_cache(maxsize=1)
def _http_date(now_s: int) -> str:
    return email.utils.formatdate(now_s, usegmt=True)
