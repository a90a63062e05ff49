"""Code shared by the three protocols: identifies senders, accepts requests, and applies faults to answers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from raccoon_fast.collector import answers
from raccoon_fast.collector.answers import DEFAULT_GROUP
from raccoon_fast.collector.decode_errors import HandlerPanic, MalformedRequest
from raccoon_fast.collector.fault_hits import Target
from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.judging import EventJudge
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.publisher import Done, Publisher
from raccoon_fast.collector.records import Batch, Request, Source
from raccoon_fast.collector.sinks import Sink

__all__ = ["Intake", "first_values", "ignore", "with_wrong_guid"]


class Intake:
    """Accepts requests; created and used on the collector's event loop."""

    def __init__(self, options: Options, sink: Sink, ledger: Ledger, faults: FaultTable, judge: EventJudge) -> None:
        self.options = options
        self.faults = faults
        self.ledger = ledger
        self.publisher = Publisher(options, sink, ledger, faults, judge)
        #: The header with the client's id, in lower case.
        self.id_header = (options.id_header or "").lower()
        self._group_header = (options.group_header or "").lower()

    def source(self, protocol: str, headers: Mapping[str, str]) -> Source:
        """The sender of a request with `headers`, whose names are in lower case."""
        connection_id = headers.get(self.id_header, "")
        return Source(protocol, connection_id, headers.get(self._group_header) or DEFAULT_GROUP, headers)

    def decode(self, data: bytes, encoding: str, source: Source) -> Request:
        """Decode a request.

        Raises:
            MalformedRequest: The request is malformed; the message has the server's words.
            HandlerPanic: The server closes the connection without an answer.
        """
        message = answers.decode_request(data, encoding)
        types = (event.type for event in message.events)
        if self.faults.rejects(types, lambda: Target(source, message.req_guid, len(message.events))):
            raise MalformedRequest("an event is refused on request")
        return Request(message, self.ledger.tally(message, data if encoding == answers.PROTO else None))

    def target(self, data: bytes, encoding: str, source: Source) -> Target:
        """The target for a fault that refuses a request unread; a request that cannot be decoded has no events."""
        try:
            message = answers.decode_request(data, encoding)
        except (MalformedRequest, HandlerPanic):
            return Target(source)
        return Target(source, message.req_guid, len(message.events))

    def take(self, request: Request, source: Source, done: Done) -> None:
        """Accept a request. `done` is called when it may be answered: at once, or after publishing (acks="sync")."""
        batch = Batch(request.message, source, time.time(), request.types)
        self.ledger.received(batch)
        if self.options.is_sync:
            self.publisher.submit(batch, done)
        else:
            self.publisher.submit(batch, ignore)
            done("")

    async def taken(self, request: Request, source: Source) -> str:
        """Like `take`, but waits until the queue has room. Returns "", or why the request was not published."""
        await self.publisher.room()
        if not self.options.is_sync:
            self.take(request, source, ignore)
            return ""
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def done(reason: str) -> None:
            if not answered.done():  # cancelled because the client has disconnected
                answered.set_result(reason)

        self.take(request, source, done)
        return await answered


def first_values(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; if a name repeats, its first value, as on the server."""
    values: dict[str, str] = {}
    for name, value in headers:
        values.setdefault(name.lower(), value)
    return values


def with_wrong_guid(answer: Any) -> Any:
    """A copy of `answer` with an unknown guid."""
    changed = type(answer)()
    changed.CopyFrom(answer)
    changed.data["req_guid"] = str(uuid.uuid4())
    return changed


def ignore(reason: str) -> None:
    """Does nothing: a client with acks="async" never learns the outcome of its batch."""
