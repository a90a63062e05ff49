"""The inspector under /inspect, as an ASGI application: a page, and the JSON that it reads.

GET /inspect
    The page.
GET /inspect/summary
    time, since (when counting began); port, grpc_port, tls, acks, sink (the collector's); protocols: by "rest",
    "websocket" and "grpc" requests, events, rejected (counts), latency (null, or requests, median, p95 and maximum,
    seconds from sent_time; see `Latency`); bad_events (how many); types: the first 200 in order of appearance: type
    (null: all others), events (by protocol), last_time, bad, rate; type_count; last_number (of the newest event);
    connection_count, connections (the newest 200 over WebSocket: connection_id, group, user_agent, since); faults (the
    names of active faults); fault_hits: what faults did to each client, the latest first, up to 50: fault, protocol,
    connection_id, group, times, requests, events, last_time, see `FaultHit`; fault_texts: descriptions by name.
GET /inspect/types?search=PART&sort=events|name|rate|bad|last&offset=NUMBER&limit=1..500
    types: `limit` of the types with `search` in their name, as in the summary; matched: their number; type_count:
    the number of types counted separately; uncounted: null, or the events of all types beyond 20,000, as one type.
GET /inspect/type?type=TYPE
    found: null if no such event came, or one type as in the summary, with minutes (its events in each minute of the
    last hour, oldest first); for its kept events: sampled (their number), size (bytes) and lateness (seconds from
    sent_time), each null or with sampled, minimum, median, p95 and maximum; since counting began, by powers of two:
    size_buckets (bytes of events that were ever kept) and late_buckets (ms, of all events), each with start, end and
    events; fields: path, kinds (the count of each), examples (JSON); see `profile.Field`.
GET /inspect/timeline
    period (10 s); events, requests (published), acks (sent), rejected: counts in each period of the
    last hour, oldest first; the last period is still running.
GET /inspect/events?FILTERS&limit=1..500&after=NUMBER&until=NUMBER
    events, in order of their numbers: the last `limit` (100) kept events that pass the filters, or with `after` the
    first ones after that number; none after `until`. last: the value of `after` for the next events. searched: the
    number of events searched; hidden: by filter, the number of events that it hid among those that passed the earlier
    filters. An event has number (its position among published events), type, protocol, size, req_guid, connection_id,
    group, user_agent, sent_time (or null), received_time, and for its data format, data (for "json" and "protobuf",
    otherwise null), text, message and problem, as `Decoded`; bad: the fault of its data (path, reason), or null if
    there is none or its type has no schema or message; faults: the names of the faults that happened to its request;
    probe: whether `raccoon-fast doctor` sent it. At high rates not all events are kept, but all are counted.
    FILTERS: type; guid, client, search (part of the guid, of the client's id or group, of the data; in any case);
    protocol=rest|websocket|grpc; quality=good|bad.
GET /inspect/good?FILTERS&limit=1..500&after=NUMBER&until=NUMBER
    As events, without bad ones.
GET /inspect/event?number=NUMBER
    One event: the members above; headers (those that may hold a secret are masked), base64 (its data, up to 16 KiB).
GET /inspect/data?number=NUMBER&offset=CHARACTERS
    The data of an event with more than 16 KiB, up to 4 MiB, while it is kept: number, format, message, problem; text:
    up to 65,536 characters of it; offset; next: the offset of the rest, or null; characters: the number of all
    characters.
GET /inspect/export?FILTERS
    The kept events that pass the filters, as JSON lines, each with the members of GET /inspect/event.
GET /inspect/bad?limit=1..500&after=NUMBER
    bad, last: as events and last above, for rejected requests: number, time, protocol, code, reason, req_guid,
    connection_id, group, user_agent, probe, size, format, text, problem; see `Rejection`. events: the last `limit`
    events whose data does not match their type: type, req_guid, protocol, connection_id, size, format, text, path,
    reason; event_count: the number of such events so far.
GET /inspect/faults
    faults: fault (a method of Faults), description, arguments (with their defaults), has_times, on, value (its first
    argument), times_left (null: until it is switched off), happened.
POST /inspect/faults {"fault": "delay", "seconds": 2, "times": 3}, {"fault": "delay", "on": false}, {"on": false}
    Switches a fault on or off, or all faults off; answers as GET.
POST /inspect/reset {}
    Deletes received events and resets all counts, as Collector.clear does; answers as GET /inspect/summary.

Answers are JSON. A POST needs `Content-Type: application/json`. A request that fails gets an HTTP status
of 400 or more and {"error": WHY}. Times are UNIX seconds. Members may be added, but are never removed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from importlib import resources
from pathlib import PurePath
from typing import NamedTuple, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from raccoon_fast import json_codec
from raccoon_fast.collector.fault_table import FaultTable
from raccoon_fast.collector.faults import Faults
from raccoon_fast.collector.inspector.decoding import Decoded, EventDecoder
from raccoon_fast.collector.inspector.fault_switches import FaultSwitches, LiveNetwork, describe
from raccoon_fast.collector.inspector.filters import FILTERS, Filters, Found
from raccoon_fast.collector.inspector.guard import Guard
from raccoon_fast.collector.inspector.journal import (
    MAX_DATA_BYTES,
    TIMELINE_PERIOD_S,
    TYPE_ORDERS,
    Journal,
    KeptEvent,
)
from raccoon_fast.collector.inspector.profile import distribution_of, fields_of
from raccoon_fast.collector.inspector.queries import limit_of, order_of, query_of, whole_number
from raccoon_fast.collector.inspector.responses import JsonResponse, error_response
from raccoon_fast.collector.inspector.showing import Showing
from raccoon_fast.collector.judging import EventJudge
from raccoon_fast.collector.ledger import Ledger
from raccoon_fast.collector.options import Options
from raccoon_fast.collector.websocket import Registry

__all__ = ["PATH", "Inspection", "Inspector", "Served"]

#: The path of the page; all other paths of the inspector are below it.
PATH = "/inspect"

_MAX_CONNECTIONS = 200
_MAX_SUMMARY_TYPES = 200
_MAX_PROFILED = 100
_MAX_PROFILED_BYTES = 1 << 20
_MAX_SUMMARY_HITS = 50
_MAX_TEXT_LENGTH = 65536
# Not `mimetypes`, whose result depends on the machine: under nosniff, a browser does not run a script with another
# type.
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Inspection(NamedTuple):
    """The parts of a collector that its inspector uses.

    Attributes:
        journal: The record of events and requests.
        decoder: Shows an event's data.
        judge: Tells good events from bad ones.
        faults: Checks and switches on the faults that the page requests.
        clear: Deletes received events.
    """

    journal: Journal
    decoder: EventDecoder
    judge: EventJudge
    faults: Faults
    clear: Callable[[], None]


class Served(LiveNetwork, Protocol):
    """The inspector's view of its server."""

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
        self._table = table
        self._switches = FaultSwitches(inspection.faults, table, server)
        self._show = Showing(inspection.decoder, table)
        self._last_whole: tuple[int, Decoded] = (0, Decoded("text", None, "", None, ""))
        routes = [
            Route(PATH, self._page),
            Route(f"{PATH}/page/{{name}}", self._page),
            Route(f"{PATH}/summary", self._summary),
            Route(f"{PATH}/events", self._events),
            Route(f"{PATH}/good", self._good),
            Route(f"{PATH}/event", self._event),
            Route(f"{PATH}/data", self._data),
            Route(f"{PATH}/export", self._export),
            Route(f"{PATH}/types", self._types),
            Route(f"{PATH}/type", self._type),
            Route(f"{PATH}/timeline", self._timeline),
            Route(f"{PATH}/bad", self._bad),
            Route(f"{PATH}/faults", self._faults, methods=["GET", "POST"]),
            Route(f"{PATH}/reset", self._reset, methods=["POST"]),
        ]
        self._app = Guard(Starlette(routes=routes, exception_handlers={HTTPException: _explain}), options.host)

    def has(self, path: str) -> bool:
        """Whether a path belongs to the inspector, even if nothing is there."""
        return path == PATH or path.startswith(f"{PATH}/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, by ASGI."""
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """End background tasks."""
        await self._switches.close()

    async def _page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        media_type = _MEDIA_TYPES.get(PurePath(name).suffix)
        if media_type is None or name not in _page_files():
            raise HTTPException(404)
        return Response(_page_files()[name], media_type=media_type)

    async def _summary(self, request: Request) -> Response:
        query_of(request)
        return self._answer_summary()

    async def _types(self, request: Request) -> Response:
        query = query_of(request, "search", "sort", "offset", "limit")
        journal, order = self._inspection.journal, query.get("sort", "events")
        if order not in TYPE_ORDERS:
            raise HTTPException(400, f"sort must be one of {', '.join(TYPE_ORDERS)}, not {order[:50]!r}")
        offset = whole_number(query, "offset", 0) or 0
        matched, found = journal.find_types(query.get("search", ""), order, offset, limit_of(query))
        uncounted = journal.uncounted
        return JsonResponse(
            {
                "types": [count._asdict() for count in found],
                "matched": matched,
                "type_count": journal.number_of_types,
                "uncounted": None if uncounted is None else uncounted._asdict(),
            }
        )

    async def _type(self, request: Request) -> Response:
        name = query_of(request, "type").get("type")
        if name is None:
            raise HTTPException(400, "type is missing: /inspect/type?type=TYPE")
        journal = self._inspection.journal
        count = journal.type_count(name)
        if count is None:
            return JsonResponse({"found": None})
        kept = [event for event in journal.kept(name) if event.type == name]
        profiled = list(self._with_whole_data(kept[-_MAX_PROFILED:]))
        requests = [event.request for event in kept]
        late = [it.received_time - it.sent_time for it in requests if it.sent_time is not None]
        sizes, late_ms = journal.type_histograms(name)
        size, lateness = distribution_of([event.size for event in kept]), distribution_of(late)
        found = {
            **count._asdict(),
            "minutes": journal.type_history(name),
            "sampled": len(kept),
            "size": None if size is None else size._asdict(),
            "lateness": None if lateness is None else lateness._asdict(),
            "size_buckets": [bucket._asdict() for bucket in sizes],
            "late_buckets": [bucket._asdict() for bucket in late_ms],
            "fields": [field._asdict() for field in fields_of(profiled, self._inspection.decoder)],
        }
        return JsonResponse({"found": found})

    def _with_whole_data(self, events: list[KeptEvent]) -> Iterator[KeptEvent]:
        """The events, the last large ones with all of their data."""
        left = _MAX_PROFILED_BYTES
        whole = {}
        for event in reversed(events):
            if len(event.data) < event.size <= left:
                whole[event.number] = self._inspection.journal.whole_data(event.number) or event.data
                left -= event.size
        return (event._replace(data=whole.get(event.number, event.data)) for event in events)

    async def _timeline(self, request: Request) -> Response:
        query_of(request)
        return JsonResponse({"period": TIMELINE_PERIOD_S, **self._inspection.journal.timeline})

    async def _events(self, request: Request) -> Response:
        return self._answer_events(query_of(request, *FILTERS, "limit", "after", "until"))

    async def _good(self, request: Request) -> Response:
        return self._answer_events(query_of(request, *FILTERS, "limit", "after", "until"), only_good=True)

    def _answer_events(self, query: dict[str, str], *, only_good: bool = False) -> Response:
        after, until, limit = whole_number(query, "after", 0), whole_number(query, "until", 0), limit_of(query)
        searched, found = self._find(query, until, only_good=only_good)
        events = found.events[-limit:] if after is None else [it for it in found.events if it.number > after][:limit]
        return JsonResponse(
            {
                "events": [self._show.event(event) for event in events],
                "last": events[-1].number if events else after or 0,
                "searched": searched,
                "hidden": found.hidden,
            }
        )

    def _find(
        self, query: Mapping[str, str], until: int | None = None, *, only_good: bool = False
    ) -> tuple[int, Found]:
        try:
            filters = Filters(query, self._inspection.decoder)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        kept = self._inspection.journal.kept(filters.type)
        if until is not None:
            kept = [event for event in kept if event.number <= until]
        if only_good:
            kept = [event for event in kept if event.fault is None]
        return len(kept), filters.find(kept)

    async def _event(self, request: Request) -> Response:
        number = whole_number(query_of(request, "number"), "number", 1)
        if number is None:
            raise HTTPException(400, "number is missing: /inspect/event?number=1")
        event = self._inspection.journal.event(number)
        if event is None:
            raise HTTPException(404, f"event {number} is not kept any more, or never came")
        return JsonResponse(self._show.whole(event))

    async def _data(self, request: Request) -> Response:
        query = query_of(request, "number", "offset")
        number, offset = whole_number(query, "number", 1), whole_number(query, "offset", 0) or 0
        if number is None:
            raise HTTPException(400, "number is missing: /inspect/data?number=1")
        if self._last_whole[0] != number:
            self._last_whole = (number, self._decode_whole(number))
        decoded = self._last_whole[1]
        text, end = decoded.text, offset + _MAX_TEXT_LENGTH
        return JsonResponse(
            {
                "number": number,
                "format": decoded.format,
                "message": decoded.message,
                "problem": decoded.problem,
                "text": text[offset:end],
                "offset": offset,
                "next": end if end < len(text) else None,
                "characters": len(text),
            }
        )

    def _decode_whole(self, number: int) -> Decoded:
        event, data = self._inspection.journal.event(number), self._inspection.journal.whole_data(number)
        if event is None:
            raise HTTPException(404, f"event {number} is not kept any more, or never came")
        if data is None and event.size > MAX_DATA_BYTES:
            raise HTTPException(404, f"only the first of the {event.size} bytes of event {number} are kept")
        return self._inspection.decoder.decode(event.type, event.data if data is None else data, event.size)

    async def _export(self, request: Request) -> Response:
        _, found = self._find(query_of(request, *FILTERS))

        async def lines() -> AsyncIterator[bytes]:
            for event in found.events:
                yield json_codec.dumps(self._show.whole(event), option=json_codec.OPT_APPEND_NEWLINE)
                await asyncio.sleep(0)  # lets the loop handle incoming requests

        headers = {"content-disposition": 'attachment; filename="events.jsonl"'}
        return StreamingResponse(lines(), headers=headers, media_type="application/x-ndjson")

    async def _bad(self, request: Request) -> Response:
        query = query_of(request, "limit", "after")
        after = whole_number(query, "after", 0)
        rejections = self._inspection.journal.rejections(limit_of(query), after)
        shown = [self._show.rejection(rejection) for rejection in rejections]
        judge = self._inspection.judge
        return JsonResponse(
            {
                "bad": shown,
                "last": rejections[-1].number if rejections else after or 0,
                "events": [self._show.bad_event(bad) for bad in judge.bad_events[-limit_of(query) :]],
                "event_count": judge.bad_count,
            }
        )

    async def _faults(self, request: Request) -> Response:
        query_of(request)
        if request.method == "POST":
            try:
                await self._switches.switch(await order_of(request))
            except (TypeError, ValueError) as error:
                raise HTTPException(400, str(error)) from None
        return JsonResponse({"faults": self._switches.state})

    async def _reset(self, request: Request) -> Response:
        query_of(request)
        if await order_of(request):
            raise HTTPException(400, "reset takes no arguments: send {}")
        self._inspection.clear()
        return self._answer_summary()

    def _answer_summary(self) -> Response:
        journal, options = self._inspection.journal, self._options
        hits = self._table.hits(_MAX_SUMMARY_HITS)
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
                "types": [count._asdict() for count in journal.first_types(_MAX_SUMMARY_TYPES)],
                "type_count": journal.number_of_types,
                "last_number": journal.last_number,
                "connection_count": self._ledger.connections,
                "connections": connections,
                "faults": self._switches.on,
                "fault_hits": [hit._asdict() for hit in hits],
                "fault_texts": {name: describe(name) for name in [*self._switches.on, *(hit.fault for hit in hits)]},
            }
        )


@functools.cache
def _page_files() -> dict[str, bytes]:
    folder = resources.files("raccoon_fast.collector.inspector").joinpath("page")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


async def _explain(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail, error.headers)
