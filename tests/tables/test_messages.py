"""Protobuf messages from columns, compared row by row with google.protobuf."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from raccoon_fast import Event, Producer, RestClient
from raccoon_fast.collector import Collector
from raccoon_fast.errors import SerializationError
from raccoon_fast.tables.columns import Columns

F = descriptor_pb2.FieldDescriptorProto
UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INSTANTS = st.datetimes(
    datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999), timezones=st.just(UTC)
)
I32, I64, U32, U64 = (
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
# Of each kind of field: its type, the types of columns that it takes, and values.
KINDS: dict[str, tuple[int, list[pa.DataType], Any]] = {
    "int32": (F.TYPE_INT32, [pa.int32(), pa.int64()], I32),
    "small": (F.TYPE_INT32, [pa.int8(), pa.int16(), pa.dictionary(pa.int8(), pa.int8())], st.integers(-128, 127)),
    "int64": (F.TYPE_INT64, [pa.int64()], I64),
    "uint32": (F.TYPE_UINT32, [pa.uint32(), pa.int64()], U32),
    "uint64": (F.TYPE_UINT64, [pa.uint64()], U64),
    "sint32": (F.TYPE_SINT32, [pa.int32()], I32),
    "sint64": (F.TYPE_SINT64, [pa.int64()], I64),
    "fixed32": (F.TYPE_FIXED32, [pa.uint32()], U32),
    "fixed64": (F.TYPE_FIXED64, [pa.uint64()], U64),
    "sfixed32": (F.TYPE_SFIXED32, [pa.int32()], I32),
    "sfixed64": (F.TYPE_SFIXED64, [pa.int64()], I64),
    "float": (F.TYPE_FLOAT, [pa.float32(), pa.float64()], st.floats(width=32)),
    "double": (F.TYPE_DOUBLE, [pa.float64()], st.floats()),
    "bool": (F.TYPE_BOOL, [pa.bool_()], st.booleans()),
    "string": (
        F.TYPE_STRING,
        [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
        TEXT,
    ),
    "bytes": (F.TYPE_BYTES, [pa.binary(), pa.large_binary(), pa.binary_view()], st.binary(max_size=200)),
    "enum": (F.TYPE_ENUM, [pa.int32(), pa.int8()], st.integers(-3, 5)),
    "moment": (
        F.TYPE_MESSAGE,
        [pa.timestamp("us", "UTC"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us")],
        INSTANTS,
    ),
    "day": (F.TYPE_MESSAGE, [pa.date32(), pa.date64()], st.dates()),
    "part": (
        F.TYPE_MESSAGE,
        [pa.struct([("n", pa.int64()), ("s", pa.string())])],
        st.fixed_dictionaries({"n": st.none() | I64, "s": st.none() | TEXT}),
    ),
}


def new_class(fields: list[tuple[str, int, str]], syntax: str = "proto3") -> Any:
    """A message of fields: name, number, and a kind, with "repeated ", "optional ", "required " or "map " before it."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax=syntax)
    file.dependency.append("google/protobuf/timestamp.proto")
    enum = file.enum_type.add(name="Color")
    for name, number in (("RED", 0), ("GREEN", 1), ("DARK", -3)):
        enum.value.add(name=name, number=number)
    part = file.message_type.add(name="Part")
    part.field.add(name="n", number=1, type=F.TYPE_INT64, label=F.LABEL_OPTIONAL)
    part.field.add(name="s", number=2, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    row = file.message_type.add(name="Row")
    for name, number, kind in fields:
        label, _, kind = kind.rpartition(" ")
        one = row.field.add(name=name, number=number, type=KINDS[kind][0])
        one.label = {"repeated": F.LABEL_REPEATED, "required": F.LABEL_REQUIRED}.get(label, F.LABEL_OPTIONAL)
        type_name = {
            "enum": ".t.Color",
            "moment": ".google.protobuf.Timestamp",
            "day": ".google.protobuf.Timestamp",
            "part": ".t.Part",
        }
        if kind in type_name:
            one.type_name = type_name[kind]
        if label == "optional" and syntax == "proto3":
            one.proto3_optional = True
            one.oneof_index = len(row.oneof_decl)
            row.oneof_decl.add(name=f"_{name}")
        if label == "map":
            entry = row.nested_type.add(name=f"{name.title()}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
            value = entry.field.add(name="value", number=2, type=one.type, label=F.LABEL_OPTIONAL)
            if kind in type_name:
                value.type_name = type_name[kind]
            one.type_name = f".t.Row.{entry.name}"
            one.type, one.label = F.TYPE_MESSAGE, F.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Row"))


def judged(cls: Any, row: dict[str, Any]) -> Any:
    """The message as a program would make it of a row."""
    message = cls()
    for name, value in row.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, (datetime.date, dict)):
                target = getattr(message, name)
                target = target.add() if isinstance(value, list) else target
                target.SetInParent()
                if isinstance(one, dict):
                    for key, item in one.items():
                        if item is not None:
                            setattr(target, key, item)
                    continue
                moment = (
                    one
                    if isinstance(one, datetime.datetime)
                    else datetime.datetime(one.year, one.month, one.day, tzinfo=UTC)
                )
                since = moment - EPOCH
                target.seconds = since.days * 86_400 + since.seconds
                target.nanos = since.microseconds * 1000
            elif isinstance(value, list):
                getattr(message, name).append(one)
            else:
                setattr(message, name, one)
    return message


def encoded(cls: Any, table: pa.Table) -> list[bytes]:
    columns = Columns("t", message=cls)
    columns.check(table.schema)
    return [data for batch in table.to_batches() for _, part in columns.events(batch) for data in part]


@settings(deadline=None)
@given(st.data())
def test_any_schema_is_encoded_as_google_protobuf_does(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    numbers = data.draw(st.lists(st.integers(1, 3000), min_size=len(kinds), max_size=len(kinds), unique=True))
    labels = data.draw(
        st.lists(st.sampled_from(["", "", "optional ", "repeated "]), min_size=len(kinds), max_size=len(kinds))
    )
    names = [f"f{number}" for number in range(len(kinds))]
    cls = new_class(
        [(name, number, label + kind) for name, number, label, kind in zip(names, numbers, labels, kinds, strict=True)]
    )
    rows = data.draw(st.integers(1, 5))
    values, arrays = {}, {}
    for name, label, kind in zip(names, labels, kinds, strict=True):
        _, types, one = KINDS[kind]
        type_ = data.draw(st.sampled_from(types))
        if label == "repeated ":
            type_ = pa.list_(type_.value_type if pa.types.is_dictionary(type_) else type_)
            one = st.lists(one, max_size=3)
        values[name] = data.draw(st.lists(st.none() | one, min_size=rows, max_size=rows), label=name)
        arrays[name] = pa.array(values[name], type_)
    start = data.draw(st.integers(0, rows - 1))
    table = pa.table(arrays).slice(start)
    found = encoded(cls, table)
    for row in range(start, rows):
        expected = judged(cls, {name: values[name][row] for name in names})
        assert found[row - start] == expected.SerializeToString()
        parsed = cls.FromString(found[row - start])
        assert parsed == expected or "nan" in str(parsed)


def test_nanoseconds_and_the_ends_of_time() -> None:
    cls = new_class([("m", 1, "moment")])
    (data,) = encoded(cls, pa.table({"m": pa.array([-1], pa.timestamp("ns"))}))
    assert cls.FromString(data).m == cls(m={"seconds": -1, "nanos": 999_999_999}).m
    for unit in ("s", "ms"):
        with pytest.raises(SerializationError, match=r"column 'm', row 1: .*protobuf's Timestamps are of the years"):
            encoded(cls, pa.table({"m": pa.array([0, 2**53], pa.timestamp(unit))}))


def test_enums_by_name() -> None:
    cls = new_class([("c", 1, "enum"), ("many", 2, "repeated enum")])
    names = pa.array(["GREEN", None, "DARK", "RED"])
    found = [
        cls.FromString(data)
        for data in encoded(cls, pa.table({"c": names, "many": [["GREEN", "RED"], [], None, ["DARK"]]}))
    ]
    assert [message.c for message in found] == [1, 0, -3, 0]
    assert [[*message.many] for message in found] == [[1, 0], [], [], [-3]]
    assert encoded(cls, pa.table({"c": names.dictionary_encode()})) == [
        cls(c=number).SerializeToString() for number in (1, 0, -3, 0)
    ]
    with pytest.raises(SerializationError, match=r"column 'c', row 1: is 'BLUE', and t\.Color has no such name"):
        encoded(cls, pa.table({"c": ["RED", "BLUE"]}))
    with pytest.raises(SerializationError, match=r"column 'many', row 0: does not fit .*BLUE"):
        encoded(cls, pa.table({"many": [["BLUE"]]}))
    closed = new_class([("c", 1, "enum")], "proto2")
    with pytest.raises(SerializationError, match=r"column 'c', row 2: is 7, and t\.Color has no such number"):
        encoded(closed, pa.table({"c": [1, None, 7]}))


def test_maps() -> None:
    cls = new_class([("m", 1, "map int32"), ("p", 2, "map part")])
    table = pa.table(
        {
            "m": pa.array([[("a", 1), ("b", 2)], None, []], pa.map_(pa.string(), pa.int64())),
            "p": pa.array([None, [("x", {"n": 5})], []], pa.map_(pa.string(), pa.struct([("n", pa.int64())]))),
        }
    )
    found = [cls.FromString(data) for data in encoded(cls, table)]
    assert [dict(message.m) for message in found] == [{"a": 1, "b": 2}, {}, {}]
    assert [{key: part.n for key, part in message.p.items()} for message in found] == [{}, {"x": 5}, {}]


def test_proto2_has_presence_and_required_fields() -> None:
    cls = new_class([("n", 1, "required int32"), ("s", 2, "string")], "proto2")
    assert encoded(cls, pa.table({"s": ["", None], "n": [0, 1]})) == [b"\x08\x00\x12\x00", b"\x08\x01"]
    with pytest.raises(ValueError, match=r"t\.Row requires a field 'n', and there is no such column"):
        encoded(cls, pa.table({"s": [""]}))
    with pytest.raises(SerializationError, match="column 'n', row 1: is null, and the field is required"):
        encoded(cls, pa.table({"n": [1, None]}))


def test_a_oneof_has_one_value() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="o.proto", syntax="proto3")
    row = file.message_type.add(name="O")
    row.oneof_decl.add(name="which")
    for number, name in enumerate(("a", "b"), 1):
        row.field.add(name=name, number=number, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL, oneof_index=0)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName("O"))
    found = encoded(cls, pa.table({"a": [1, None, None, 0], "b": [None, 2, None, None]}))
    assert found == [cls(a=1).SerializeToString(), cls(b=2).SerializeToString(), b"", cls(a=0).SerializeToString()]
    with pytest.raises(SerializationError, match="column 'b', row 1: is not the only one set of the oneof which"):
        encoded(cls, pa.table({"a": [1, 1], "b": [None, 2]}))


@pytest.mark.parametrize(
    ("kind", "column", "message"),
    [
        ("int32", pa.array(["1"]), r"column 'f' is string, which the field 'f' \(int32\) of t.Row does not take"),
        ("int32", pa.array([1.5]), "column 'f' is double"),
        ("string", pa.array([b"x"]), "column 'f' is binary"),
        ("bytes", pa.array(["x"]), "column 'f' is string"),
        ("bool", pa.array([1]), "column 'f' is int64"),
        ("double", pa.array([True]), "column 'f' is bool"),
        ("moment", pa.array([1]), r"the field 'f' \(google.protobuf.Timestamp\)"),
        ("part", pa.array([1]), r"the field 'f' \(t.Part\)"),
        ("repeated int32", pa.array([1]), r"the field 'f' \(repeated int32\)"),
        ("int32", pa.array([[1]]), "column 'f' is list"),
        ("map int32", pa.array([{"a": 1}]), r"the field 'f' \(map\)"),
    ],
)
def test_a_value_of_a_wrong_type_is_found_before_anything_is_sent(kind: str, column: pa.Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Columns("t", message=new_class([("f", 1, kind)])).check(pa.table({"f": column}).schema)


def test_columns_and_fields_are_matched_by_name() -> None:
    cls = new_class([("a", 1, "int32"), ("b", 2, "int32")])
    assert encoded(cls, pa.table({"b": [1]})) == [b"\x10\x01"]
    assert encoded(cls, pa.table({"b": [1], "a": [2]})) == [b"\x08\x02\x10\x01"]
    assert encoded(cls, pa.table({"b": pa.nulls(2)})) == [b"", b""]
    with pytest.raises(ValueError, match=r"column 'c' has no field in t\.Row, whose fields are a, b"):
        encoded(cls, pa.table({"c": [1]}))


@pytest.mark.parametrize(
    ("kind", "column", "why"),
    [
        ("int32", pa.array([1, 2**31]), "is 2147483648, which is no int32"),
        ("uint32", pa.array([1, -1]), "is -1, which is no uint32"),
        ("uint64", pa.array([1, -1]), "is -1, which is no uint64"),
        ("repeated int32", pa.array([[1], [2**31]]), "does not fit the field 'f'"),
        ("repeated int32", pa.array([[1], [None]]), "does not fit the field 'f'"),
        ("part", pa.array([None, {"x": 1}]), r"t\.Part has no field 'x'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(kind: str, column: pa.Array, why: str) -> None:
    with pytest.raises(SerializationError, match=f"^column 'f', row 1: .*{why}"):
        encoded(new_class([("f", 1, kind)]), pa.table({"f": column}))


def test_a_message_is_a_class_or_a_descriptor() -> None:
    cls = new_class([("a", 1, "int32")])
    assert encoded(cls.DESCRIPTOR, pa.table({"a": [1]})) == [b"\x08\x01"]
    for wrong in (cls(), "t.Row", 5, dict):
        with pytest.raises(TypeError, match="message takes a class of protobuf messages or its descriptor"):
            Columns("t", message=wrong)
    with pytest.raises(ValueError, match="give serializer or message, not both"):
        Columns("t", serializer="raw", message=cls)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def test_messages_arrive(collector: Collector) -> None:
    cls = new_class([("n", 1, "int32"), ("x", 2, "double")])
    table = pa.table({"kind": ["a", "b"], "n": [1, 2], "x": [math.pi, None]})
    with Producer(collector.ws_url) as producer:
        producer.emit_table(table, type_column="kind", message=cls)
    expected = [("a", cls(n=1, x=math.pi).SerializeToString()), ("b", cls(n=2).SerializeToString())]
    assert [(event.type, event.data) for event in collector.events] == expected
    with RestClient(collector.url) as client:
        client.send_table(table, type_column="kind", message=cls)
    assert [(event.type, event.data) for event in collector.events][2:] == expected


def test_before_send_gets_the_message(collector: Collector) -> None:
    cls = new_class([("n", 1, "int32")])

    def hook(event: Event) -> Event:
        event.data.n += 1
        return event

    with Producer(collector.ws_url, before_send=hook) as producer:
        producer.emit_table(pa.table({"n": [1, 2]}), event_type="t", message=cls)
    assert [event.data for event in collector.events] == [b"\x08\x02", b"\x08\x03"]
