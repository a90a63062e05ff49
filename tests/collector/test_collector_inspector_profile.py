"""The fields that a type's stored events have in common."""

from __future__ import annotations

import json

from raccoon_fast.collector.inspector.decoding import EventDecoder
from raccoon_fast.collector.inspector.journal import KeptEvent
from raccoon_fast.collector.inspector.profile import Distribution, Field, distribution_of, fields_of
from raccoon_fast.collector.records import ReceivedRequest

REQUEST = ReceivedRequest("g", 1, "rest", {}, None, 0.0, "", "")


def fields(*values: bytes) -> list[Field]:
    events = [KeptEvent(number, "page", len(data), data, REQUEST) for number, data in enumerate(values)]
    return fields_of(events, EventDecoder())


def test_distribution() -> None:
    assert distribution_of([]) is None
    assert distribution_of([3]) == Distribution(1, 3, 3, 3, 3)
    assert distribution_of(range(100, 0, -1)) == Distribution(100, 1, 50, 95, 100)


def test_fields_have_kinds_and_examples() -> None:
    found = fields(
        b'{"id": 1, "tags": ["a", "b"], "in": {"x": null}}', b'{"id": "one", "new": true}', b'{"id": 2.5}', b"no"
    )
    assert found == [
        Field("$", {"object": 3}, []),
        Field("$.id", {"number": 2, "string": 1}, ["1", '"one"', "2.5"]),
        Field("$.tags", {"array": 1}, []),
        Field("$.tags[*]", {"string": 2}, ['"a"', '"b"']),
        Field("$.in", {"object": 1}, []),
        Field("$.in.x", {"null": 1}, ["null"]),
        Field("$.new", {"boolean": 1}, ["true"]),
    ]
    assert fields(b"\x00") == []


def test_hostile_data_stays_bounded() -> None:
    deep = b"[" * 500 + b"]" * 500
    wide = json.dumps({f"field {number}": "x" * 500 for number in range(1000)}).encode()
    found = fields(deep, wide, json.dumps({"y" * 1000: 1}).encode(), json.dumps([1] * 1000).encode())
    assert len(found) == 200
    assert max(len(field.path) for field in found) <= 200
    assert max(len(example) for field in found for example in field.examples) == 80
    assert next(field for field in found if field.path == "$[*]").kinds == {"array": 1, "number": 20}
