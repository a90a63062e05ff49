"""REST: POST /api/v1/events and GET /ping, with the same answers as the server."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, Final

from raccoon_fast.collector import answers
from raccoon_fast.collector.decode_errors import HandlerPanic, MalformedRequest
from raccoon_fast.collector.fault_hits import Target
from raccoon_fast.collector.fault_table import AnswerFaults, Refusal
from raccoon_fast.collector.go_http import Head
from raccoon_fast.collector.go_url import clean_path
from raccoon_fast.collector.http_answer import TEXT, Answer, text_answer
from raccoon_fast.collector.intake import Intake, first_values, ignore, with_wrong_guid
from raccoon_fast.collector.records import REST, WEBSOCKET, Request, Source
from raccoon_fast.collector.sockets import reset
from raccoon_fast.collector.websocket import EVENTS_PATH, refusal_of_handshake

__all__ = ["RestApp"]

_ENCODINGS = {"application/json": answers.JSON, "application/proto": answers.PROTO}
_NO_FAULTS = AnswerFaults()
_TOO_LARGE: Final = text_answer(413, "Request Entity Too Large").closing()
_EVENTS_PATH = EVENTS_PATH.encode("ascii")
_METHODS = {b"/ping": ("GET",), _EVENTS_PATH: ("GET", "POST")}

_log = logging.getLogger("raccoon_fast.collector")


class RestApp:
    """Answers REST requests. The collector has one instance, used on its event loop.

    Args:
        intake: Accepts requests.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._last_head: Head | None = None
        self._last_source: Source | None = None

    # Before the body is read.

    def is_handshake(self, head: Head) -> bool:
        """Whether the WebSocket handler gets this request."""
        return head.method == "GET" and head.target.path == _EVENTS_PATH

    def refuse_handshake(self, head: Head) -> Answer | None:
        """The answer that refuses a handshake; None if the connection becomes a WebSocket."""
        refused = refusal_of_handshake(head)
        if refused is None and (refusal := self._take_refusal(head)) is not None:
            refused = _from_refusal(refusal).closing()
        if refused is not None and head.has_token("upgrade", "websocket"):
            self._reject_handshake(head, refused)
        elif refused is not None:
            self._reject(head, refused.status, "GET without an upgrade to WebSocket")
        return refused

    def early_error(self, head: Head) -> Answer | None:
        """The answer that a fault gives to a POST of events before its body is read; None without such a fault."""
        if head.method != "POST" or head.target.path != _EVENTS_PATH:
            return None
        refusal = self._intake.faults.take("early_error", lambda: Target(self._source(head)))
        if refusal is None:
            return None
        self._reject(head, refusal.status, "before the body was read")
        return _from_refusal(refusal).closing()

    def answer_without_body(self, head: Head) -> Answer | None:
        """The answer to a request whose body is irrelevant; None for a POST of events in a known encoding."""
        method, path = head.method, head.target.path
        if method == "OPTIONS" and path == b"*":
            return Answer(200)
        clean = clean_path(path)
        if clean != path:
            location = head.target.redirected(clean).decode("latin-1")
            self._reject_post(head, 301, f"moved to {location}")
            return Answer(301, (("location", location),))
        methods = _METHODS.get(path)
        if methods is None:
            not_found = text_answer(404, "404 page not found")
            if method == "GET" and head.has_token("upgrade", "websocket"):
                self._reject_handshake(head, not_found)
            self._reject_post(head, 404, f"POST {path.decode('utf-8', 'replace')}: 404 page not found")
            return not_found
        if method not in methods:
            self._reject(head, 405, f"method {method}")
            return Answer(405)
        if path != _EVENTS_PATH:
            return Answer(200, (("content-type", TEXT),), b"pong")
        content_type = head.first("content-type") or ""
        if content_type in _ENCODINGS:
            return None
        self._reject(head, 400, f"invalid content type: {content_type or 'none'}")
        body = answers.encode_answer(answers.unreadable("invalid content type"), answers.JSON)
        return Answer(400, (("content-type", content_type),), body)

    def too_large(self, head: Head) -> Answer:
        """The answer to a body that is too large for memory; the server itself has no limit."""
        self._reject(head, 413, "request entity too large")
        return _TOO_LARGE

    def broken_body(self, head: Head) -> Answer:
        """The answer to a body whose chunked encoding is invalid."""
        self._reject(head, 500, "deserialization failure: the chunked body cannot be read")
        answer = answers.failure_without_guid("deserialization failure")
        return _answer(500, head.first("content-type") or "", answer).closing()

    # With the body.

    def source_at_once(self, head: Head) -> Source | None:
        """The sender of a POST of events with this head if it can be answered without waiting; otherwise None."""
        if not (self._intake.faults.is_empty and self._intake.publisher.is_immediate):
            return None
        if head is not self._last_head:  # equal heads are usually the same object
            self._last_head, self._last_source = head, self._source(head)
        return self._last_source

    def answer_at_once(self, source: Source, head: Head, data: bytes) -> bytes:
        """The complete answer to a POST of events, as `answer` returns it.

        Raises:
            HandlerPanic: The server closes the connection without an answer.
        """
        content_type = source.headers["content-type"]
        encoding = _ENCODINGS[content_type]
        request = self._decode(data, encoding, source)
        if request is None:
            status, answer = 400, answers.unreadable("deserialization failure")
        else:
            self._intake.take(request, source, ignore)
            self._intake.ledger.acknowledged()
            status, answer = 200, answers.success(request.req_guid)
        _log.debug("POST %s: %d", EVENTS_PATH, status)
        return _answer(status, content_type, answer).on_the_wire(head)

    async def answer(self, head: Head, data: bytes, transport: asyncio.Transport) -> Answer | None:
        """Answer a POST of events; None if no answer is to be sent.

        Raises:
            HandlerPanic: The server closes the connection without an answer.
        """
        faults = self._intake.faults
        source = self._source(head)
        encoding = _ENCODINGS[source.headers["content-type"]]
        unread = functools.partial(self._intake.target, data, encoding, source)
        if faults.limits(len(data), unread) is not None:
            self._reject(head, 413, "request entity too large", data)
            return _TOO_LARGE
        if (refusal := faults.take("status", unread)) is not None:
            self._reject(head, refusal.status, refusal.body.decode("utf-8", "replace"), data)
            return _from_refusal(refusal)
        request = self._decode(data, encoding, source)
        if request is None:
            target = Target(source)
            return await self._spoil(400, answers.unreadable("deserialization failure"), target, transport, head)
        del data, unread  # frees a large body while the publisher's queue is full
        target = Target(source, request.req_guid, len(request.message.events))
        reason = await self._intake.taken(request, source)
        if reason:
            answer = answers.failure(request.req_guid, f"cannot publish events: {reason}")
            return await self._spoil(500, answer, target, transport, head)
        return await self._spoil(200, answers.success(request.req_guid), target, transport, head)

    def _decode(self, data: bytes, encoding: str, source: Source) -> Request | None:
        """The decoded request; None if it is malformed, which the ledger then records."""
        try:
            return self._intake.decode(data, encoding, source)
        except MalformedRequest as error:
            self._intake.ledger.rejected(source, "400", f"deserialization failure: {error}", data=data)
        except HandlerPanic as panic:
            self._intake.ledger.rejected(source, "", f"{panic}: the connection is closed", data=data)
            raise
        return None

    def _take_refusal(self, head: Head) -> Any:
        source = self._intake.source(WEBSOCKET, first_values(head.headers))
        return self._intake.faults.take("status", lambda: Target(source, requests=0))

    def _source(self, head: Head) -> Source:
        return self._intake.source(REST, first_values(head.headers))

    def _reject_handshake(self, head: Head, refused: Answer) -> None:
        source = self._intake.source(WEBSOCKET, first_values(head.headers))
        path, words = (part.decode("utf-8", "replace") for part in (head.target.path, refused.body.strip()))
        self._intake.ledger.rejected(source, str(refused.status), f"handshake of {path}: {words}")

    def _reject_post(self, head: Head, status: int, reason: str) -> None:
        if head.method == "POST":  # clients send events only by POST
            self._reject(head, status, reason)

    def _reject(self, head: Head, status: int, reason: str, data: bytes = b"") -> None:
        self._intake.ledger.rejected(self._source(head), str(status), reason, data=data)

    async def _spoil(
        self, status: int, answer: Any, target: Target, transport: asyncio.Transport, head: Head
    ) -> Answer | None:
        """Apply the active faults to the answer; None if no answer is to be sent."""
        faults = self._intake.faults.for_answer(lambda: target, owns_bytes=True) or _NO_FAULTS
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
        elif status == 200 and faults.body is None and faults.cut_bytes is None:
            self._intake.ledger.acknowledged()
        content_type = head.first("content-type") or ""
        spoilt = _answer(status, content_type, answer)
        if faults.body is not None:
            spoilt = Answer(200, spoilt.headers, faults.body)
        if faults.duplicate:
            transport.write(spoilt.on_the_wire(head))
        if faults.cut_bytes is not None:
            transport.write(spoilt.on_the_wire(head)[: faults.cut_bytes])
            transport.close()
            return None
        return spoilt


def _answer(status: int, content_type: str, answer: Any) -> Answer:
    return Answer(status, (("content-type", content_type),), answers.encode_answer(answer, _ENCODINGS[content_type]))


def _from_refusal(refusal: Refusal) -> Answer:
    return Answer(refusal.status, refusal.headers, refusal.body)
