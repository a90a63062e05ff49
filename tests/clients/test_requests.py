"""Turning a user's events into a request."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest
from scripted import SendEventRequest

from raccoon_fast import RAW, Event, MessageTooLargeError, SerializationError
from raccoon_fast.clients.requests import RequestBuilder
from raccoon_fast.core.envelope import MAX_GUID_BYTES
from raccoon_fast.serializers import resolve_serializer

EVENTS = [("page", b"one"), ("click", b"two")]


@pytest.fixture(params=[bytes, RAW], ids=["one by one", "runs"], autouse=True)
def usual(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(USUAL, "serializer", resolve_serializer(request.param))


USUAL: dict[str, Any] = {}


def builder(wire: str = "proto", max_bytes: int | None = None, serializer: Any = None) -> RequestBuilder:
    return RequestBuilder(serializer or USUAL["serializer"], wire, max_bytes)


def proto(request: Any) -> Any:
    request.envelope.stamp(request.req_guid, 5, 6)
    return SendEventRequest.FromString(bytes(request.envelope.payload()))


@pytest.mark.parametrize(
    "made",
    [
        list,
        tuple,
        iter,
        lambda them: [Event(*one) for one in them],
        lambda them: [*map(list, them)],
        lambda them: dict(them).items(),
    ],
    ids=["list", "tuple", "iterator", "Event", "lists", "items"],
)
def test_events(made: Any) -> None:
    message = proto(builder().build(made(EVENTS), "g"))
    assert [(event.type, event.event_bytes) for event in message.events] == EVENTS
    assert (message.req_guid, message.sent_time.seconds, message.sent_time.nanos) == ("g", 5, 6)


@pytest.mark.parametrize("wire", ["proto", "json"])
def test_lists_of_usual_and_unusual_events(wire: str) -> None:
    text = type("Text", (str,), {})
    kinds: list[tuple[Any, Any]] = [
        ("page", b"one"),
        ("page", b"two"),
        (text("page"), b"three"),
        ("page", bytearray(b"four")),
        ("click", memoryview(b"f-i-v-e")[::2]),
        Event("click", b"six"),
        ["click", b"seven"],  # type: ignore[list-item]
        ("p\u00e4ge", b""),
        ("page", bytes(100_000)),
    ]
    for first in range(len(kinds)):
        many = [*kinds[first:], *kinds[:first]] * 2
        request = builder(wire).build(many, "g")
        expected = builder(wire).build(iter(many), "g")
        for one in (request, expected):
            one.envelope.stamp("g", 5, 6)
        assert bytes(request.envelope.payload()) == bytes(expected.envelope.payload())
        assert (request.size, request.envelope.count) == (expected.size, len(many))  # type: ignore[attr-defined]


def test_json() -> None:
    request = builder("json").build(EVENTS, "g")
    assert request.wire == "json"
    request.envelope.stamp("g", 5, 6)
    message = json.loads(bytes(request.envelope.payload()))
    assert [(event["type"], base64.b64decode(event["event_bytes"])) for event in message["events"]] == EVENTS


def test_a_fresh_guid_each() -> None:
    guids = {builder().build(EVENTS, None).req_guid for _ in range(100)}
    assert len(guids) == 100
    assert all(str(uuid.UUID(guid)) == guid for guid in guids)


@pytest.mark.parametrize("guid", ["g", "g" * MAX_GUID_BYTES, "\u20ac" * (MAX_GUID_BYTES // 3)])
def test_a_guid_of_the_callers(guid: str) -> None:
    assert builder().build(EVENTS, guid).req_guid == guid


@pytest.mark.parametrize(
    ("guid", "error"),
    [
        ("", ValueError),
        ("g" * (MAX_GUID_BYTES + 1), ValueError),
        ("\u20ac" * 342, ValueError),
        ("\ud800", ValueError),
        (b"g", TypeError),
        (7, TypeError),
        (uuid.UUID(int=7), TypeError),
    ],
    ids=repr,
)
def test_an_invalid_guid(guid: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"req_guid|surrogates"):
        builder().build(EVENTS, guid)


@pytest.mark.parametrize("events", [Event("page", b""), "page", b"page", None, 7])
def test_values_that_are_not_a_sequence_of_events(events: Any) -> None:
    with pytest.raises(TypeError, match=rf"events takes a sequence .* not {type(events).__name__}"):
        builder().build(events, None)


@pytest.mark.parametrize("events", [[], (), iter(())])
def test_nothing(events: Any) -> None:
    with pytest.raises(ValueError, match="events is empty"):
        builder().build(events, None)


@pytest.mark.parametrize("event", [None, "ab", b"ab", ("page",), ("page", b"", 1), {"page": b""}, 7])
def test_values_that_are_not_events(event: Any) -> None:
    with pytest.raises(TypeError, match=r"events\[1\] must be Event"):
        builder().build([EVENTS[0], event], None)


def test_an_invalid_type() -> None:
    with pytest.raises(TypeError, match=r"events\[1\]: type must be a str, not bytes"):
        builder().build([EVENTS[0], (b"page", b"")], None)
    with pytest.raises(SerializationError, match=r"events\[1\] of type '': .*empty"):
        builder().build([EVENTS[0], ("", b"")], None)


def test_a_serializer_that_fails() -> None:
    def serialize(data: Any) -> bytes:
        raise KeyError("user")

    with pytest.raises(SerializationError, match=r"events\[0\] of type 'page': 'user'") as caught:
        builder(serializer=serialize).build(EVENTS, None)
    assert (caught.value.index, caught.value.event_type) == (0, "page")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_serializer_that_returns_something_else() -> None:
    with pytest.raises(SerializationError, match=r"events\[0\] .* not str"):
        builder(serializer=lambda data: data.decode()).build(EVENTS, None)


@pytest.mark.parametrize("wire", ["proto", "json"])
def test_the_limit_is_that_of_the_whole_message(wire: str) -> None:
    size = builder(wire).build(EVENTS, "g").size
    assert builder(wire, size).build(EVENTS, "g").size == size
    with pytest.raises(MessageTooLargeError, match="fewer of its 2 events") as caught:
        builder(wire, size - 1).build(EVENTS, "g")
    assert (caught.value.size, caught.value.limit) == (size, size - 1)
    # The size is never less than what is sent, whatever the time.
    request = builder(wire).build(EVENTS, "g")
    request.envelope.stamp("g", 253_402_300_799, 999_999_999)
    assert request.envelope.nbytes <= size


def test_wire_must_be_proto_or_json() -> None:
    with pytest.raises(ValueError, match="wire must be"):
        builder("avro")
