"""How the inspector shows an event's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

import raccoon_fast.cli
from raccoon_fast.cli.flights import flight_message, read_flights
from raccoon_fast.collector import Collector
from raccoon_fast.collector.inspector.decoding import EventDecoder

DESCRIPTORS = Path(raccoon_fast.cli.__file__).parent / "flight.desc"
FLIGHT = "raccoon_fast.flights.v1.Flight"


@pytest.fixture(scope="module")
def decoder() -> EventDecoder:
    return EventDecoder(DESCRIPTORS, {"flight": FLIGHT})


@pytest.mark.parametrize(
    "data",
    [
        b'{"name": "home", "tags": [1, null, true]}',
        b" [1,2] ",
        b"123",
        b'"text"',
        b'{"n": 123456789012345678901234567890, "n": 1.10}',
        '{"é": "\\u0000"}'.encode(),
    ],
)
def test_json_is_shown_as_sent(decoder: EventDecoder, data: bytes) -> None:
    shown = decoder.decode("page", data, len(data))
    assert (shown.format, shown.json, shown.text) == ("json", data, data.decode())
    assert (shown.message, shown.problem) == (None, "")


@pytest.mark.parametrize("text", ["", "plain", "two\nlines\tand a tab", "{", "NaN", "é 🦝", "[1,]"])
def test_text(decoder: EventDecoder, text: str) -> None:
    data = text.encode()
    shown = decoder.decode("page", data, len(data))
    assert (shown.format, shown.json, shown.text, shown.problem) == ("text", None, text, "")


@pytest.mark.parametrize("data", [b"\x00", b"\n\x04page", b"\xff\xfe", "a\x9f".encode(), b"caf\xc3"])
def test_bytes(decoder: EventDecoder, data: bytes) -> None:
    shown = decoder.decode("page", data, len(data))
    assert (shown.format, shown.json) == ("hex", None)
    assert bytes.fromhex(shown.text) == data


def test_protobuf(decoder: EventDecoder) -> None:
    record = json.loads(read_flights(1)[0])
    data = flight_message(record).SerializeToString()
    shown = decoder.decode("flight", data, len(data))
    assert (shown.format, shown.message, shown.problem) == ("protobuf", FLIGHT, "")
    assert shown.json is not None
    assert shown.json.decode() == shown.text
    decoded = json.loads(shown.json)
    assert decoded["time_hour"] == record.pop("time_hour")
    assert {name: decoded[name] for name in record if record[name]} == {k: v for k, v in record.items() if v}


def test_protobuf_of_another_type_is_shown_as_bytes(decoder: EventDecoder) -> None:
    data = flight_message(json.loads(read_flights(1)[0])).SerializeToString()
    assert decoder.decode("page", data, len(data)).format == "hex"
    assert decoder.decode(None, data, len(data)).format == "hex"


def test_data_that_is_not_the_message_is_shown_by_its_form(decoder: EventDecoder) -> None:
    shown = decoder.decode("flight", b"\xff\xff", 2)
    assert (shown.format, shown.text, shown.message) == ("hex", "ff ff", FLIGHT)
    assert shown.problem.startswith(f"not a {FLIGHT}: ")
    shown = decoder.decode("flight", b'{"carrier": "UA"}', 17)
    assert shown.format == "json"
    assert shown.problem.startswith(f"not a {FLIGHT}: ")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1', ("text", '{"a": 1')),
        (b"123", ("text", "123")),
        (b"caf\xc3", ("text", "caf")),
        (b"\xff", ("hex", "ff")),
    ],
)
def test_truncated_data_is_not_parsed(decoder: EventDecoder, data: bytes, expected: tuple[str, str]) -> None:
    for event_type in ("page", "flight"):
        shown = decoder.decode(event_type, data, 1000)
        assert (shown.format, shown.text) == expected
        assert shown.problem == f"the first {len(data)} of 1000 bytes"


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["page", "flight", None]))
def test_anything_can_be_shown(decoder: EventDecoder, data: bytes, event_type: str | None) -> None:
    shown = decoder.decode(event_type, data, len(data))
    shown.text.encode()  # no lone surrogates
    if shown.json is not None:
        json.loads(shown.json)
    if shown.format == "hex":
        assert bytes.fromhex(shown.text) == data


def make_without_import(path: Path) -> Path:
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    del descriptors.file[0]
    path.write_bytes(descriptors.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"descriptors": "missing.desc", "messages": {"a": FLIGHT}}, FileNotFoundError, "missing.desc"),
        (
            {"descriptors": __file__, "messages": {"a": FLIGHT}},
            ValueError,
            "is not a FileDescriptorSet; make one by protoc",
        ),
        (
            {"descriptors": DESCRIPTORS, "messages": {"a": "no.Such"}},
            ValueError,
            "has no message 'no.Such' (for 'a'); it has ",
        ),
        ({"descriptors": DESCRIPTORS}, ValueError, "go together"),
        ({"messages": {"a": FLIGHT}}, ValueError, "go together"),
        ({"descriptors": 5, "messages": {}}, TypeError, "descriptors must be the path"),
        ({"descriptors": DESCRIPTORS, "messages": [("a", FLIGHT)]}, TypeError, "messages must map"),
        ({"descriptors": DESCRIPTORS, "messages": {"a": 1}}, TypeError, "messages must map"),
        ({"descriptors": DESCRIPTORS, "messages": {1: FLIGHT}}, TypeError, "messages must map"),
    ],
)
def test_a_wrong_argument_is_named_when_the_collector_is_made(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        Collector(inspect=True, **arguments)
    assert words in str(caught.value)


def test_a_missing_import_is_named(tmp_path: Path) -> None:
    path = make_without_import(tmp_path / "flight.desc")
    with pytest.raises(ValueError, match=r"lacks an import \(protoc --include_imports\): .*timestamp.proto"):
        Collector(inspect=True, descriptors=path, messages={"flight": FLIGHT})


def test_inspect_is_a_boolean() -> None:
    with pytest.raises(TypeError, match="inspect must be True or False, not 1"):
        Collector(inspect=1)  # type: ignore[arg-type]
