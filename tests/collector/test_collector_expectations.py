"""Waiting for certain events, and the error of a test when they do not arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from patience import patient

from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest

NewCollector = Callable[..., Collector]


@pytest.fixture
def collector(new_collector: NewCollector) -> Collector:
    return new_collector()


def send(peer: Any, collector: Collector, *events: tuple[str, bytes]) -> None:
    message = SendEventRequest(events=[{"type": name, "event_bytes": data} for name, data in events])
    assert peer.post(collector, message.SerializeToString()).status_code == 200


def test_events_are_returned(peer: Any, collector: Collector) -> None:
    send(
        peer, collector, ("page", b'{"name": "home", "user": {"id": 1, "age": 3}}'), ("click", b"x"), ("page", b"\xff")
    )
    assert [event.type for event in collector.wait_for(3)] == ["page", "click", "page"]
    assert [event.data for event in collector.wait_for(2, type="page")][1] == b"\xff"
    for where in ({"name": "home"}, {"user": {"id": 1}}, {}, lambda event: event.data.startswith(b"{")):
        (event,) = collector.wait_for(1, type="page", where=where)
        assert event.json()["name"] == "home"
    assert len(collector.wait_for(1, where={"name": "home"})) == 1


def test_waiting_continues_over_a_clear(peer: Any, collector: Collector) -> None:
    send(peer, collector, ("page", b"1"))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(collector.wait_for(2, type="page", where=lambda _: True)))
    thread.start()
    collector.clear()
    send(peer, collector, ("page", b"2"))
    send(peer, collector, ("page", b"3"))
    thread.join(patient(10))
    assert [event.data for event in found][-1] == b"3"


def test_nothing_came(collector: Collector) -> None:
    with pytest.raises(
        TimeoutError, match=r"^0 of 1 events of type 'page' arrived within 0\.01 s; nothing arrived at all"
    ):
        collector.wait_for(1, 0.01, type="page")


def test_other_events_came(peer: Any, collector: Collector) -> None:
    send(peer, collector, ("page", b'{"name": "away", "n": 1}'), ("click", b"x" * 1000), ("click", b"y"))
    with pytest.raises(TimeoutError) as caught:
        collector.wait_for(1, 0.01, type="page", where={"name": "home"})
    assert str(caught.value).splitlines() == [
        """0 of 1 events of type 'page' with {"name": "home"} arrived within 0.01 s""",
        "received: 2 x 'click', 1 x 'page'",
        "the last event of that type (-), and what was expected (+):",
        "    {",
        '  -   "n": 1,',
        '  -   "name": "away"',
        '  +   "name": "home"',
        "    }",
    ]
    with pytest.raises(TimeoutError, match=r"(?s)0 of 1 events where <lambda> holds .*\.\.\. \(1000 bytes\)"):
        collector.wait_for(1, 0.01, where=lambda event: event.type == "buy")
    with pytest.raises(TimeoutError, match="the last event of that type is not JSON: b'y'"):
        collector.wait_for(1, 0.01, type="click", where={"name": "home"})


def test_it_needs_events_to_look_at(new_collector: NewCollector) -> None:
    collector = new_collector(sink="null")
    assert collector.wait_for(0) == []
    with pytest.raises(ValueError, match="needs sink='memory'"):
        collector.wait_for(1, type="page")


def test_an_event_s_data_decoded(peer: Any, collector: Collector) -> None:
    message = SendEventRequest(req_guid="inner")
    send(peer, collector, ("json", b'{"a": 1}'), ("proto", message.SerializeToString()), ("junk", b"\xff"))
    first, second, third = collector.events
    assert first.json() == {"a": 1}
    assert second.message(SendEventRequest) == message
    with pytest.raises(ValueError, match="the data of the event of type 'junk' is not JSON"):
        third.json()
    with pytest.raises(ValueError, match=r"type 'junk' is not a raystack\.raccoon\.v1beta1\.SendEventRequest"):
        third.message(SendEventRequest)
