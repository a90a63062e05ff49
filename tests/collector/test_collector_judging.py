"""Good and bad events are counted, stored and shown with their faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import raccoon_fast.cli
from raccoon_fast.collector import Collector
from raccoon_fast.collector.judging import MAX_BAD_EVENTS
from raccoon_fast.collector.messages import SendEventRequest

NewCollector = Callable[..., Collector]

PAGE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name"],
}
DESCRIPTORS = Path(raccoon_fast.cli.__file__).parent / "flight.desc"
FLIGHT = "raccoon_fast.flights.v1.Flight"


def send(peer: Any, collector: Collector, *events: tuple[str, bytes], guid: str = "g") -> None:
    message = SendEventRequest(req_guid=guid, events=[{"type": name, "event_bytes": data} for name, data in events])
    assert peer.post(collector, message.SerializeToString()).status_code == 200


@pytest.mark.parametrize("inspect", [False, True])
def test_an_event_that_does_not_match_its_schema_is_acknowledged_and_bad(
    inspect: bool, peer: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(schemas={"page": PAGE}, inspect=inspect)
    good, bad, no_json = ("page", b'{"name": "home"}'), ("page", b'{"name": "x", "tags": ["a", 1]}'), ("page", b"\xff")
    send(peer, collector, good, bad, ("click", b"anything"))
    send(peer, collector, no_json, ("page", b"{}"), guid="h")
    assert collector.event_count == 5
    assert [(it.event.req_guid, it.path, it.reason) for it in collector.bad_events][::2] == [
        ("g", "$.tags[1]", "1 is not of type 'string'"),
        ("h", "$", "'name' is a required property"),
    ]
    assert collector.bad_events[1].reason.startswith("is not JSON: ")
    with pytest.raises(AssertionError, match=r"3 of 5 events are bad:\n  'page' of request g: at \$\.tags\[1\]: "):
        collector.assert_no_bad_events()
    collector.clear()
    assert (collector.bad_events, collector.bad_event_count) == ([], 0)
    collector.assert_no_bad_events()


def test_the_last_bad_events_are_kept_and_all_are_counted(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(schemas={"page": PAGE}, sink="null")
    send(peer, collector, *[("page", b'{"name": %d}' % number) for number in range(MAX_BAD_EVENTS + 5)])
    assert collector.bad_event_count == MAX_BAD_EVENTS + 5
    assert len(collector.bad_events) == MAX_BAD_EVENTS
    assert collector.bad_events[0].event.data == b'{"name": 5}'


def test_a_schema_in_a_file(tmp_path: Path, peer: Any, new_collector: NewCollector) -> None:
    path = tmp_path / "page.json"
    path.write_text(json.dumps(PAGE))
    collector = new_collector(schemas={"page": path})
    send(peer, collector, ("page", b"[]"))
    assert collector.bad_event_count == 1


@pytest.mark.parametrize(
    ("schemas", "error", "words"),
    [
        ([], TypeError, "schemas must map"),
        ({1: {}}, TypeError, "schemas must map"),
        ({"page": {"type": "nothing"}}, ValueError, "the schema of 'page' is not a JSON Schema"),
        ({"page": "missing.json"}, OSError, "missing.json"),
        ({"page": DESCRIPTORS}, ValueError, "is not JSON"),
    ],
)
def test_an_invalid_schema_is_refused(schemas: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Collector(schemas=schemas)


def test_messages(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(descriptors=DESCRIPTORS, messages={"flight": FLIGHT})
    send(peer, collector, ("flight", b""), ("flight", b"\xff"), ("flight", b"\xfa\x3f\x01x"))
    first, second = collector.bad_events
    assert (first.path, first.reason.partition(":")[0]) == ("$", f"is not a {FLIGHT}")
    assert (second.path, second.reason) == ("field 1023", f"is not a field of {FLIGHT}")
    with pytest.raises(ValueError, match="both a JSON Schema and a protobuf message"):
        Collector(descriptors=DESCRIPTORS, messages={"flight": FLIGHT}, schemas={"flight": {}})


def test_the_inspector_shows_good_and_bad(peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(schemas={"page": PAGE}, inspect=True)
    send(peer, collector, ("page", b'{"name": "home"}'), ("page", b'{"name": 1}'), ("click", b"{}"))
    wrong = {"path": "$.name", "reason": "1 is not of type 'string'"}

    def get(path: str) -> Any:
        return httpx.get(f"{collector.url}/inspect/{path}").json()

    assert [event["bad"] for event in get("events")["events"]] == [None, wrong, None]
    good = get("good?type=page")
    assert [event["text"] for event in good["events"]] == ['{"name": "home"}']
    assert good["last"] == 1
    bad = get("bad")
    assert (bad["bad"], bad["event_count"]) == ([], 1)
    (event,) = bad["events"]
    assert (event["type"], event["text"], event["req_guid"]) == ("page", '{"name": 1}', "g")
    assert {name: event[name] for name in wrong} == wrong
    assert get("summary")["bad_events"] == 1


def test_follow_is_called_with_each_event_and_may_fail(
    peer: Any, new_collector: NewCollector, caplog: pytest.LogCaptureFixture
) -> None:
    followed = []

    def follow(event: Any) -> None:
        followed.append(event)
        if event.type == "b":
            raise ZeroDivisionError

    collector = new_collector(follow=follow)
    send(peer, collector, ("a", b"1"), ("b", b"2"))
    assert followed == collector.events
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(TypeError, match="follow must be a function, not 1"):
        Collector(follow=1)  # type: ignore[arg-type]
