"""Events from Arrow columns, compared row by row with orjson."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.cli.flights import read_flights
from raccoon_fast.tables import columns as columns_module
from raccoon_fast.tables.columns import Columns

UTC = datetime.timezone.utc


def events(columns: Columns, table: pa.Table) -> list[tuple[str, bytes]]:
    columns.check(table.schema)
    encoded = [part for batch in table.to_batches() for part in columns.events(batch)]
    return [event for types, data in encoded for event in zip(types, data, strict=True)]


def as_json(**values: Any) -> list[bytes]:
    return [data for _, data in events(Columns("a"), pa.table(values))]


def test_real_flights_are_encoded_as_orjson_does() -> None:
    lines = read_flights()
    table = pa.Table.from_pylist([json.loads(line) for line in lines])
    assert [data for _, data in events(Columns("flight"), table)] == lines


# Whatever may come in a column, with nulls; the text above all.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KINDS = {
    "bool": (pa.bool_(), st.booleans()),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "double": (pa.float64(), st.floats()),
    "float": (pa.float32(), st.floats(width=32)),
    "string": (pa.string(), TEXT),
    "large": (pa.large_string(), TEXT),
    "view": (pa.string_view(), TEXT),
    "words": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", 'b"', "ü"])),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "seconds": (pa.timestamp("s"), st.datetimes().map(lambda it: it.replace(microsecond=0))),
    "instant": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "list": (pa.list_(pa.string()), st.lists(TEXT | st.none(), max_size=3)),
    "struct": (pa.struct([("x", pa.int32()), ("y", pa.string())]), st.builds(lambda y: {"x": 1, "y": y}, TEXT)),
    "null": (pa.null(), st.none()),
}


@given(st.data())
def test_any_columns_are_encoded_as_orjson_does(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5, unique=True))
    rows = data.draw(st.integers(1, 6))
    values = {
        name: data.draw(st.lists(KINDS[name][1] | st.none(), min_size=rows, max_size=rows), label=name)
        for name in names
    }
    table = pa.table({name: pa.array(values[name], KINDS[name][0]) for name in names})
    start = data.draw(st.integers(0, rows - 1))
    expected = [
        orjson.dumps({name: values[name][row] for name in names}, None, orjson.OPT_UTC_Z) for row in range(start, rows)
    ]
    assert [data for _, data in events(Columns("a"), table.slice(start))] == expected


def test_values_python_has_no_type_for() -> None:
    amounts = [decimal.Decimal("1.50"), None, decimal.Decimal("-12345678901234567890.01")]
    assert as_json(d=pa.array(amounts, pa.decimal128(30, 2))) == [
        b'{"d":1.50}',
        b'{"d":null}',
        b'{"d":-12345678901234567890.01}',
    ]
    assert as_json(d=pa.array([{"x": amounts[0]}], pa.struct([("x", pa.decimal128(30, 2))]))) == [b'{"d":{"x":1.50}}']
    assert as_json(m=pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64()))) == [
        b'{"m":{"k":1}}',
        b'{"m":{}}',
        b'{"m":null}',
    ]
    assert as_json(h=pa.array([0.5], pa.float16())) == [b'{"h":0.5}']
    # Beyond the microsecond nothing is left of a time.
    instant_ns = 1_500_000_000_123_456_789
    assert as_json(t=pa.array([instant_ns], pa.timestamp("ns"))) == [b'{"t":"2017-07-14T02:40:00.123456"}']
    assert as_json(t=pa.array([[instant_ns]], pa.list_(pa.timestamp("ns")))) == [
        b'{"t":["2017-07-14T02:40:00.123456"]}'
    ]
    assert as_json(t=pa.array([1_000_000_001], pa.time64("ns"))) == [b'{"t":"00:00:01"}']


def test_keys_are_escaped_and_stand_in_the_order_asked_for() -> None:
    table = pa.table({'a"': [1], "b": ["x"], "c": [None]})
    assert events(Columns("t", data_columns=["c", 'a"']), table) == [("t", b'{"c":null,"a\\"":1}')]


def test_the_type_column_is_left_out_of_the_data() -> None:
    table = pa.table({"t": pa.array(["x", "y", "x"]).dictionary_encode(), "n": [1, 2, 3]})
    assert events(Columns(type_column="t"), table) == [("x", b'{"n":1}'), ("y", b'{"n":2}'), ("x", b'{"n":3}')]
    plain = events(Columns(type_column="t"), table.cast(pa.schema([("t", pa.string()), ("n", pa.int64())])))
    assert plain[0] == ("x", b'{"n":1}')
    assert plain[0][0] is plain[2][0]  # one object for all events of a type
    assert events(Columns(type_column="t", data_columns=["t", "n"]), table)[0] == ("x", b'{"t":"x","n":1}')


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2), pa.string(), pa.large_string()]
)
def test_raw(kind: pa.DataType) -> None:
    values = pa.array([b"ab", b"cd"], kind)
    assert events(Columns("a", serializer="raw"), pa.table({"b": values})) == [("a", b"ab"), ("a", b"cd")]


def test_many_rows_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "_ROWS", 7)
    monkeypatch.setattr(columns_module, "_BYTES", 400)
    table = pa.table({"n": range(100), "s": ["x" * 100] * 50 + ["y"] * 50})
    parts = [part for batch in table.to_batches() for part in Columns("a").events(batch)]
    assert {len(types) for types, _ in parts} == {6, 4}  # by bytes; 7 rows are over them
    assert [json.loads(data)["n"] for _, part in parts for data in part] == list(range(100))


@pytest.mark.parametrize("column", [["a", None], pa.array(["a", None]).dictionary_encode()])
def test_a_null_type_is_refused(column: Any) -> None:
    with pytest.raises(ValueError, match="column 't', row 1: must not be null"):
        events(Columns(type_column="t"), pa.table({"t": column, "n": [1, 2]}))


def test_null_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="column 'b', row 1: must not be null"):
        events(Columns("a", serializer="raw"), pa.table({"b": [b"x", None]}))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (pa.binary(), "it has nothing for binary"),
        (pa.duration("s"), "it has nothing for duration"),
        (pa.list_(pa.binary()), "it has nothing for binary"),
        (pa.struct([("x", pa.list_(pa.binary()))]), "it has nothing for binary"),
        (pa.map_(pa.int32(), pa.int32()), "keys that are not strings"),
        (pa.map_(pa.string(), pa.binary()), "it has nothing for binary"),
        (pa.month_day_nano_interval(), "it has nothing for month_day_nano"),
    ],
)
def test_values_json_cannot_represent_are_refused(kind: pa.DataType, what: str) -> None:
    with pytest.raises(ValueError, match=f"column 'c' cannot be JSON: .*{what}"):
        Columns("a").check(pa.schema([("n", pa.int32()), ("c", kind)]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "not neither"),
        ({"event_type": "a", "type_column": "t"}, ValueError, "not both"),
        ({"event_type": ""}, ValueError, "event_type must not be empty"),
        ({"event_type": 5}, TypeError, "event_type takes a str"),
        ({"event_type": "a", "serializer": "proto"}, ValueError, "serializer must be one of json, raw"),
        ({"event_type": "a", "data_columns": "n"}, TypeError, "data_columns takes the names"),
        ({"event_type": "a", "data_columns": []}, ValueError, "data_columns must name columns"),
        ({"event_type": "a", "data_columns": ["n", "n"]}, ValueError, "each once"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Columns(**arguments)


def test_missing_and_duplicate_columns() -> None:
    schema = pa.schema([("n", pa.int32()), ("n", pa.int32()), ("t", pa.string())])
    with pytest.raises(ValueError, match="column 'n' is there more than once"):
        Columns("a").check(schema)
    with pytest.raises(ValueError, match="column 'x' is not there; the columns are n, n, t"):
        Columns("a", data_columns=["x"]).check(schema)
    with pytest.raises(ValueError, match="type_column 't' must be of strings, not binary"):
        Columns(type_column="t").check(pa.schema([("t", pa.binary()), ("n", pa.int32())]))
    with pytest.raises(ValueError, match="serializer=raw sends one column; name it in data_columns, out of a, b"):
        Columns("t", serializer="raw").check(pa.schema([("a", pa.binary()), ("b", pa.binary())]))
