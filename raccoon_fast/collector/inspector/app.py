"""The inspector under /inspect, as an ASGI application: a page, and the JSON it lives on.

GET /inspect
    The page.
GET /inspect/summary
    time, since (when counting began); port, grpc_port, tls, acks, sink (the collector's); protocols: by "rest",
    "websocket" and "grpc" requests, events, rejected (counts), latency (null, or requests, median, p95 and maximum,
    seconds from sent_time; see `Latency`); types: type (null: all beyond the first 200), events (by protocol),
    last_time; connection_count, connections (the newest 200 over WebSocket: connection_id, group, user_agent, since);
    faults (the names of those that are on).
GET /inspect/events?type=TYPE&limit=1..500&after=NUMBER
    events, in order of their numbers: the last `limit` (100) that are kept, of one type or all, or with `after` the
    first behind that number; last: the number to ask for what is behind them. An event has number (it counts those
    published), type, protocol, size, req_guid, connection_id, group, user_agent, sent_time (or null), received_time,
    and of its data format, data (for "json" and "protobuf", else null), text, message and problem, as `Decoded`. Of
    many a second not all are kept; all are counted.
    bad: null, or what is wrong with its data (path, reason), where its type has a schema or a message.
GET /inspect/good?type=TYPE&limit=1..500&after=NUMBER
    As events, without those that are bad.
GET /inspect/bad?limit=1..500&after=NUMBER
    bad, last: the same of requests that were rejected: number, time, protocol, code, reason, req_guid, connection_id,
    group, user_agent, size, format, text, problem; see `Rejection`. events: the last `limit` events whose data does not
    match their type: type, req_guid, protocol, connection_id, size, format, text, path, reason; event_count: how many
    there were.
GET /inspect/faults
    faults: fault (a method of Faults), description, arguments (with what they are unless given), has_times, on, value
    (its first argument), times_left (null: until it is switched off), happened.
POST /inspect/faults {"fault": "delay", "seconds": 2, "times": 3}, {"fault": "delay", "on": false}, {"on": false}
    Switches a fault on, off, or all of them off; answered as GET.
POST /inspect/reset {}
    Forgets what came in, and counts from nothing, as Collector.clear does; answered as GET /inspect/summary.

Answers are JSON. An order needs `Content-Type: application/json`. What cannot be answered is answered by an HTTP status
of 400 or more and {"error": WHY}. Times are UNIX seconds. Members may be added, none is taken away.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any, NamedTuple, Protocol

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.faults import Faults
from raccoon_fast.collector.inspector.decoding import EventDecoder
from raccoon_fast.collector.inspector.fault_switches import FaultSwitches, LiveNetwork
from raccoon_fast.collector.inspector.guard import Guard
from raccoon_fast.collector.inspector.journal import MAX_DATA_BYTES, Journal, KeptEvent, Rejection
from raccoon_fast.collector.inspector.responses import JsonResponse, error_response
from raccoon_fast.collector.judging import BadEvent, EventJudge
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.websocket import Registry

__all__ = ["PATH", "Inspection", "Inspector", "Served"]

#: Of the page; what else there is lies below.
PATH = "/inspect"

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 500
_MAX_CONNECTIONS = 200
_MAX_ORDER_BYTES = 64 << 10
# Not `mimetypes`, which asks the machine: a script of another type is not run under nosniff.
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Inspection(NamedTuple):
    """What a collector has for its inspector.

    Attributes:
        journal: What passed.
        decoder: Shows an event's data.
        judge: Tells good events from bad ones.
        faults: Checks and switches on what the page asks for.
        clear: Forgets what came in.
    """

    journal: Journal
    decoder: EventDecoder
    judge: EventJudge
    faults: Faults
    clear: Callable[[], None]


class Served(LiveNetwork, Protocol):
    """What the inspector asks of the server it is part of."""

    @property
    def port(self) -> int:
        """The port of REST and WebSocket."""

    @property
    def grpc_port(self) -> int:
        """The port of gRPC."""


class Inspector:
    """The application; made and used on the collector's event loop."""

    def __init__(
        self,
        inspection: Inspection,
        server: Served,
        options: Options,
        ledger: Ledger,
        registry: Registry,
        table: FaultTable,
    ) -> None:
        self._inspection = inspection
        self._server = server
        self._options = options
        self._ledger = ledger
        self._registry = registry
        self._switches = FaultSwitches(inspection.faults, table, server)
        routes = [
            Route(PATH, self._page),
            Route(f"{PATH}/page/{{name}}", self._page),
            Route(f"{PATH}/summary", self._summary),
            Route(f"{PATH}/events", self._events),
            Route(f"{PATH}/good", self._good),
            Route(f"{PATH}/bad", self._bad),
            Route(f"{PATH}/faults", self._faults, methods=["GET", "POST"]),
            Route(f"{PATH}/reset", self._reset, methods=["POST"]),
        ]
        self._app = Guard(Starlette(routes=routes, exception_handlers={HTTPException: _explain}), options.host)

    def has(self, path: str) -> bool:
        """Whether a path is the inspector's, be there something or not."""
        return path == PATH or path.startswith(f"{PATH}/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, as ASGI has it."""
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """End what goes on by itself."""
        await self._switches.close()

    async def _page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        media_type = _MEDIA_TYPES.get(PurePath(name).suffix)
        if media_type is None or name not in _page_files():
            raise HTTPException(404)
        return Response(_page_files()[name], media_type=media_type)

    async def _summary(self, request: Request) -> Response:
        _query(request)
        return self._answer_summary()

    async def _events(self, request: Request) -> Response:
        query = _query(request, "type", "limit", "after")
        after = _whole_number(query, "after", 0)
        events = self._inspection.journal.events(_limit(query), after, query.get("type"))
        shown = [self._show_event(event) for event in events]
        return JsonResponse({"events": shown, "last": events[-1].number if events else after or 0})

    async def _good(self, request: Request) -> Response:
        query = _query(request, "type", "limit", "after")
        after = _whole_number(query, "after", 0)
        events = self._inspection.journal.events(_limit(query), after, query.get("type"))
        shown = [shown for event in events if (shown := self._show_event(event))["bad"] is None]
        return JsonResponse({"events": shown, "last": events[-1].number if events else after or 0})

    async def _bad(self, request: Request) -> Response:
        query = _query(request, "limit", "after")
        after = _whole_number(query, "after", 0)
        rejections = self._inspection.journal.rejections(_limit(query), after)
        shown = [self._show_rejection(rejection) for rejection in rejections]
        judge = self._inspection.judge
        return JsonResponse(
            {
                "bad": shown,
                "last": rejections[-1].number if rejections else after or 0,
                "events": [self._show_bad_event(bad) for bad in judge.bad_events[-_limit(query) :]],
                "event_count": judge.bad_count,
            }
        )

    async def _faults(self, request: Request) -> Response:
        _query(request)
        if request.method == "POST":
            try:
                await self._switches.switch(await _order(request))
            except (TypeError, ValueError) as error:
                raise HTTPException(400, str(error)) from None
        return JsonResponse({"faults": self._switches.state})

    async def _reset(self, request: Request) -> Response:
        _query(request)
        if await _order(request):
            raise HTTPException(400, "reset takes no arguments: send {}")
        self._inspection.clear()
        return self._answer_summary()

    def _answer_summary(self) -> Response:
        journal, options = self._inspection.journal, self._options
        rejected, latencies = journal.rejection_counts, journal.latencies
        protocols = {
            protocol: {
                "requests": counts.requests,
                "events": counts.events,
                "rejected": rejected[protocol],
                "latency": latencies[protocol]._asdict() if protocol in latencies else None,
            }
            for protocol, counts in self._ledger.counts.items()
        }
        connections = [
            {
                "connection_id": source.connection_id,
                "group": source.group,
                "user_agent": source.user_agent,
                "since": since,
            }
            for source, since in self._registry.newest(_MAX_CONNECTIONS)
        ]
        return JsonResponse(
            {
                "time": time.time(),
                "since": journal.since,
                "port": self._server.port,
                "grpc_port": self._server.grpc_port,
                "tls": options.tls_cert is not None,
                "acks": options.acks,
                "sink": os.fspath(options.sink),
                "protocols": protocols,
                "bad_events": self._inspection.judge.bad_count,
                "types": [count._asdict() for count in journal.types],
                "connection_count": self._ledger.connections,
                "connections": connections,
                "faults": self._switches.on,
            }
        )

    def _show_event(self, event: KeptEvent) -> dict[str, Any]:
        decoded, request = self._inspection.decoder.decode(event.type, event.data, event.size), event.request
        is_whole = len(event.data) == event.size
        fault = self._inspection.judge.fault_of(event.type, event.data) if is_whole else None
        return {
            "number": event.number,
            "type": event.type,
            "protocol": request.protocol,
            "size": event.size,
            "format": decoded.format,
            "data": None if decoded.json is None else orjson.Fragment(decoded.json),
            "text": decoded.text,
            "message": decoded.message,
            "problem": decoded.problem,
            "req_guid": request.req_guid,
            "sent_time": request.sent_time,
            "received_time": request.received_time,
            "connection_id": request.connection_id,
            "group": request.group,
            "user_agent": request.user_agent,
            "bad": None if fault is None else fault._asdict(),
        }

    def _show_bad_event(self, bad: BadEvent) -> dict[str, Any]:
        event, data = bad.event, bad.event.data[:MAX_DATA_BYTES]
        decoded = self._inspection.decoder.decode(event.type, data, len(event.data))
        return {
            "type": event.type,
            "req_guid": event.req_guid,
            "protocol": event.protocol,
            "connection_id": event.connection_id,
            "size": len(event.data),
            "format": decoded.format,
            "text": decoded.text,
            "path": bad.path,
            "reason": bad.reason,
        }

    def _show_rejection(self, rejection: Rejection) -> dict[str, Any]:
        decoded = self._inspection.decoder.decode(None, rejection.data, rejection.size)
        shown = rejection._asdict()
        del shown["data"]
        return {**shown, "format": decoded.format, "text": decoded.text, "problem": decoded.problem}


@functools.cache
def _page_files() -> dict[str, bytes]:
    folder = resources.files("raccoon_fast.collector.inspector").joinpath("page")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def _query(request: Request, *allowed: str) -> dict[str, str]:
    """The query's parameters.

    Raises:
        HTTPException: One is not known here, or is there twice.
    """
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in allowed:
            raise HTTPException(400, f"{name!r} is no parameter here: {', '.join(allowed) or 'there are none'}")
        if name in query:
            raise HTTPException(400, f"{name} is there twice")
        query[name] = value
    return query


def _limit(query: Mapping[str, str]) -> int:
    limit = _whole_number(query, "limit", 1, _MAX_LIMIT)
    return _DEFAULT_LIMIT if limit is None else limit


def _whole_number(query: Mapping[str, str], name: str, low: int, high: int = 2**63 - 1) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    # The length first: int() takes long for a long text, or refuses it.
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not low <= value <= high:
        raise HTTPException(400, f"{name} must be a whole number from {low} to {high}, not {text[:50]!r}")
    return value


async def _order(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        HTTPException: It is none, or too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_ORDER_BYTES:
            raise HTTPException(413, f"an order has up to {_MAX_ORDER_BYTES} bytes")
    try:
        order = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, f"the body must be a JSON object, such as {{}}: {error}") from None
    if not isinstance(order, dict):
        raise HTTPException(400, f"the body must be a JSON object, not {order!r:.50}")
    return order


async def _explain(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail, error.headers)
