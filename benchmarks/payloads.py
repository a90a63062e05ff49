"""The events to send: random bytes of fixed sizes, and real flights."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

from raccoon_fast.cli.flights import flight_message, read_flights
from raccoon_fast.collector.messages import SendEventRequest

TYPE = "page-view"
SIZES = {"200 B": 200, "50 B": 50, "1 kB": 1_000, "10 kB": 10_000}
FLIGHTS = ("flights, JSON", "flights, protobuf")
PAYLOADS = (*SIZES, *FLIGHTS)
GUID = "17e2ac19-df8b-4a30-b111-fd7f5073d2f5"
SENT_TIME = (1_700_000_000, 123_456_789)

# In generated code, Event is a separate class, not SendEventRequest.Event.
Event: Any = type(SendEventRequest().events.add())


def events_of(payload: str, count: int) -> list[tuple[str, bytes]]:
    """`count` events, the same at every call: random bytes of one size, or the first flights."""
    if payload in SIZES:
        source = random.Random(count)
        return [(TYPE, source.randbytes(SIZES[payload])) for _ in range(count)]
    if payload == "flights, JSON":
        return [("flight", record) for record in read_flights(count)]
    return [("flight", message.SerializeToString()) for message in flight_messages(count)]


@functools.cache
def flight_dicts(count: int) -> list[dict[str, Any]]:
    """The first flights as Python objects."""
    return [json.loads(record) for record in read_flights(count)]


def flight_messages(count: int) -> list[Any]:
    """The first flights as protobuf messages."""
    return [flight_message(record) for record in flight_dicts(count)]


def google_request(req_guid: str, events: list[tuple[str, bytes]]) -> bytes:
    """A request built as users of google.protobuf do: one `add` per event."""
    seconds, nanos = SENT_TIME
    request = SendEventRequest(req_guid=req_guid)
    request.sent_time.seconds = seconds
    request.sent_time.nanos = nanos
    add = request.events.add
    for type_, data in events:
        add(event_bytes=data, type=type_)
    return request.SerializeToString()
