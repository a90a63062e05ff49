"""The results of a search, and the events that each filter hides."""

from __future__ import annotations

import pytest

from raccoon_fast.collector.inspector.decoding import EventDecoder
from raccoon_fast.collector.inspector.filters import Filters
from raccoon_fast.collector.inspector.journal import KeptEvent
from raccoon_fast.collector.judging import Fault
from raccoon_fast.collector.records import ReceivedRequest


def event(number: int, name: str, data: bytes, protocol: str, client: str, fault: Fault | None = None) -> KeptEvent:
    request = ReceivedRequest(f"Guid-{number}", 1, protocol, {}, None, 0.0, client, "Team-A" if number < 3 else "b")
    return KeptEvent(number, name, len(data), data, request, fault)


EVENTS = [
    event(1, "page", b'{"who": "Ann"}', "rest", "Web-1"),
    event(2, "page", b"Stra\xc3\x9fe", "websocket", "mobile"),
    event(3, "Page", b"\x00\xff", "grpc", "web-2", Fault("$", "is wrong")),
]


@pytest.mark.parametrize(
    ("query", "numbers", "hidden"),
    [
        ({}, [1, 2, 3], {}),
        ({"type": "page"}, [1, 2], {"type": 1}),
        ({"type": ""}, [], {"type": 3}),
        ({"guid": "gUID-2"}, [2], {"guid": 2}),
        ({"client": "WEB"}, [1, 3], {"client": 1}),
        ({"client": "team"}, [1, 2], {"client": 1}),
        ({"protocol": "grpc"}, [3], {"protocol": 2}),
        ({"quality": "bad"}, [3], {"quality": 2}),
        ({"quality": "good"}, [1, 2], {"quality": 1}),
        ({"search": "ann"}, [1], {"search": 2}),
        ({"search": "STRASSE"}, [2], {"search": 2}),
        ({"search": "00 ff"}, [3], {"search": 2}),
        ({"search": ".*"}, [], {"search": 3}),
        ({"search": "who", "type": "page", "protocol": "websocket"}, [], {"type": 1, "protocol": 1, "search": 1}),
    ],
)
def test_filters_find_and_hide_events(query: dict[str, str], numbers: list[int], hidden: dict[str, int]) -> None:
    found = Filters(query, EventDecoder()).find(EVENTS)
    assert ([it.number for it in found.events], found.hidden) == (numbers, hidden)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"protocol": "http"}, "protocol must be one of rest, websocket, grpc, not 'http'"),
        ({"quality": ""}, "quality must be one of good, bad, not ''"),
    ],
)
def test_an_invalid_choice_is_refused(query: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Filters(query, EventDecoder())
