"""Records read from a spool are complete and valid."""

from __future__ import annotations

import math
from typing import Any

import pytest

from raccoon_fast.core.batch import Batch
from raccoon_fast.spool.records import Record, checksum_of, counts_of, fault_of, fault_of_events, text_of

BODY = b"\x1a\x06\x0a\x01x\x12\x01a"


def columns(**changed: Any) -> list[Any]:
    row = {"req_guid": "guid", "wire": "proto", "accepted_at": 1000.5, "types": '{"a": 1}', "body": BODY, **changed}
    body = row["body"] if isinstance(row["body"], bytes) else b""
    checksum = checksum_of(row["req_guid"], row["wire"], row["accepted_at"], row["types"], body)
    return [row["req_guid"], row["wire"], row["accepted_at"], row["types"], checksum, row["body"]]


def test_a_valid_record() -> None:
    batch = Batch("proto")
    batch.add("a", b"x")
    assert (batch.envelope.body(), text_of(batch.types)) == (BODY, '{"a": 1}')
    assert fault_of(columns()) == ""
    assert fault_of(columns(wire="json", body=b'{"type":"a","event_bytes":"eA=="}')) == ""


@pytest.mark.parametrize("position", range(6))
def test_any_column_that_was_changed(position: int) -> None:
    row = columns()
    row[position] = {str: "x", float: 1.25, int: 7, bytes: b"x"}[type(row[position])]
    assert fault_of(row) == "its checksum does not hold"


NONSENSE = {
    "unknown wire": ({"wire": "avro"}, "wire format"),
    "no guid": ({"req_guid": ""}, "guid"),
    "huge guid": ({"req_guid": "g" * 1025}, "guid"),
    "huge guid in bytes": ({"req_guid": "é" * 513}, "guid"),
    "guid a number": ({"req_guid": 5}, "guid"),
    "time before time": ({"accepted_at": -1.0}, "time"),
    "no time": ({"accepted_at": math.nan}, "time"),
    "endless time": ({"accepted_at": math.inf}, "time"),
    "time in ns": ({"accepted_at": 1.7e18}, "time"),
    "time a text": ({"accepted_at": "now"}, "time"),
    "body a text": ({"body": "text"}, "checksum"),
    "more events than bytes": ({"types": '{"a": 10}'}, "counts"),
}


@pytest.mark.parametrize(("changed", "fault"), NONSENSE.values(), ids=NONSENSE)
def test_a_nonsensical_record_with_a_valid_checksum(changed: dict[str, Any], fault: str) -> None:
    assert fault in fault_of(columns(**changed))


COUNTS = [
    '{"a": -1}',
    '{"a": 0}',
    '{"a": true}',
    '{"a": 1.0}',
    '{"a": 1e3}',
    '{"a": NaN}',
    '{"a": null}',
    '{"a": "1"}',
    '{"a": [1]}',
    '{"": 1}',
    '{"a": 1, "b": -1}',
    '{"a": 100000000000000000000000000}',
    '{"a": 1000000000}',
    '{"\\ud800": 1}',
    "{}",
    "[]",
    '["a"]',
    "5",
    "null",
    "",
    "{",
    "[" * 100_000,
    "9" * 10_000,
    b"\xff",
    None,
    7,
]


@pytest.mark.parametrize("text", COUNTS, ids=lambda text: repr(text)[:20])
def test_nonsensical_counts_are_ignored(text: Any) -> None:
    assert counts_of(text) == {}
    assert fault_of(columns(types=text)) == "its counts by type make no sense"


def test_counts() -> None:
    assert counts_of(text_of({"a": 1, "é": 2})) == {"a": 1, "é": 2}


@pytest.mark.parametrize("wire", ["proto", "json"])
def test_events_that_differ_from_their_counts(wire: str) -> None:
    batch = Batch(wire)
    batch.add_many([("a", b"x"), ("b", b"y"), ("a", b"z")])
    record = Record("guid", wire, 1.5, {"a": 2, "b": 1}, batch.envelope.body())
    assert fault_of_events(record) == ""
    for types in {"a": 1, "b": 1}, {"a": 2, "b": 1, "c": 1}, {"c": 3}, {"a": 1, "b": 2}:
        assert "counts" in fault_of_events(record._replace(types=types))
    for body in record.body[:-1], record.body + b"\x1a", b"\xff" * 50:
        assert fault_of_events(record._replace(body=body)) == "its events cannot be read"
