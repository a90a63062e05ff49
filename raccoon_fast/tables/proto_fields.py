"""Encodes columns as protobuf messages: each column is the field of the same name.

The core encodes numbers, booleans, strings, bytes, enums and timestamps. Repeated fields, maps and messages are encoded
row by row: a message with only that field is serialized, and its bytes are those of the field.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from raccoon_fast.core.columns import Field, Slices, encode_rows
from raccoon_fast.core.wire import encode_varint
from raccoon_fast.tables.errors import BadRowError
from raccoon_fast.tables.kinds import (
    check_years,
    is_bytes,
    is_text,
    number_field,
    plain_type,
    python_values,
    text_field,
    unpacked,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MessageFields"]

_F = FieldDescriptor
# For each scalar type: the core's kind, the Arrow type to read it from, and the wire type (encoding specification).
_NUMBERS = {
    _F.TYPE_INT32: ("varint", pa.int32(), 0),
    _F.TYPE_INT64: ("varint", pa.int64(), 0),
    _F.TYPE_UINT32: ("varint", pa.uint32(), 0),
    _F.TYPE_UINT64: ("varint", pa.uint64(), 0),
    _F.TYPE_SINT32: ("zigzag", pa.int32(), 0),
    _F.TYPE_SINT64: ("zigzag", pa.int64(), 0),
    _F.TYPE_FIXED32: ("fixed", pa.uint32(), 5),
    _F.TYPE_FIXED64: ("fixed", pa.uint64(), 1),
    _F.TYPE_SFIXED32: ("fixed", pa.int32(), 5),
    _F.TYPE_SFIXED64: ("fixed", pa.int64(), 1),
    _F.TYPE_ENUM: ("varint", pa.int32(), 0),
    _F.TYPE_FLOAT: ("fixed", pa.float32(), 5),
    _F.TYPE_DOUBLE: ("fixed", pa.float64(), 1),
    _F.TYPE_BOOL: ("flag", pa.bool_(), 0),
}
_FLOATS = (_F.TYPE_FLOAT, _F.TYPE_DOUBLE)
_TIMESTAMP = "google.protobuf.Timestamp"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class MessageFields:
    """Encodes rows as messages of one type.

    Args:
        message: A generated class, or a descriptor.

    Attributes:
        name: The message's full name.

    Raises:
        TypeError: It is neither.
    """

    def __init__(self, message: Any) -> None:
        descriptor = message if isinstance(message, Descriptor) else getattr(message, "DESCRIPTOR", None)
        if not isinstance(descriptor, Descriptor) or (message is not descriptor and not isinstance(message, type)):
            raise TypeError(f"message takes a class of protobuf messages or its descriptor, not {message!r:.80}")
        self.name: str = descriptor.full_name
        self._fields: dict[str, FieldDescriptor] = {field.name: field for field in descriptor.fields}
        self._class = message_factory.GetMessageClass(descriptor)

    def check(self, schema: pa.Schema, names: Sequence[str]) -> None:
        """Compare columns with the message's fields.

        Raises:
            ValueError: A column has no field of the same name, its type does not fit the field, or a required field
                has no column. The message names the column or field.
        """
        for name in names:
            field = self._fields.get(name)
            if field is None:
                raise ValueError(
                    f"column {name!r} has no field in {self.name}, whose fields are {', '.join(self._fields)}; leave "
                    "it out of data_columns, or rename it"
                )
            kind = schema.field(name).type
            if not _takes(field, plain_type(kind)):
                raise ValueError(f"column {name!r} is {kind}, which {_said(field)} of {self.name} does not take")
        for field in self._fields.values():
            if _is_required(field) and field.name not in names:
                raise ValueError(f"{self.name} requires a field {field.name!r}, and there is no such column")

    def encode(self, names: Sequence[str], rows: pa.RecordBatch) -> Slices:
        """Encode rows as messages.

        Raises:
            BadRowError: A value does not fit its field.
        """
        fields = []
        for field in sorted((self._fields[name] for name in names), key=lambda field: field.number):
            column = unpacked(rows.column(field.name))
            if _is_required(field) and column.null_count:
                raise BadRowError(
                    field.name, column.is_null().index(True).as_py(), "is null, and the field is required"
                )
            if not pa.types.is_null(column.type):
                fields.append(self._field(field, column))
        self._check_oneofs(names, rows)
        return encode_rows(fields, rows.num_rows)

    def parse(self, data: bytes) -> Any:
        """Parse a message."""
        return self._class.FromString(data)

    def _field(self, field: FieldDescriptor, column: pa.Array) -> Field:
        name, kind = field.name, column.type
        if not _is_repeated(field):
            options = {"skips_zero": not field.has_presence}
            if field.type in _NUMBERS:
                how, target, wire_type = _NUMBERS[field.type]
                if field.type == _F.TYPE_ENUM:
                    column = _enum_numbers(field, column)
                elif kind != target:
                    column = _cast(name, column, target, safe=field.type not in _FLOATS)
                return number_field(how, encode_varint(field.number << 3 | wire_type), column, **options)
            before = encode_varint(field.number << 3 | 2)
            if field.type in (_F.TYPE_STRING, _F.TYPE_BYTES):
                return text_field("bytes", before, column, **options)
            if _is_time(field, kind):
                check_years(name, column, "protobuf's Timestamps")
                if pa.types.is_date(kind):
                    column = column.cast(pa.timestamp("s"))
                return number_field("moment", before, column, per_second=_PER_SECOND[column.type.unit])
        encoded = [
            self._alone(field, value, row) for row, value in enumerate(python_values(name, column, "cannot be read"))
        ]
        return text_field("finished", b"", pa.array(encoded, pa.large_binary()))

    def _alone(self, field: FieldDescriptor, value: Any, row: int) -> bytes:
        """Serialize a message with only this field."""
        if value is None:
            return b""
        message = self._class()
        try:
            _set(message, field, value)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            text = error.args[0] if error.args else error
            raise BadRowError(field.name, row, f"does not fit {_said(field)} of {self.name}: {text}") from error
        data: bytes = message.SerializePartialToString()
        return data

    def _check_oneofs(self, names: Sequence[str], rows: pa.RecordBatch) -> None:
        """Refuse rows that set two fields of a oneof: protobuf keeps only one."""
        groups: dict[str, list[str]] = {}
        for name in names:
            oneof = self._fields[name].containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                groups.setdefault(oneof.name, []).append(name)
        for oneof_name, members in groups.items():
            seen: Any = None
            for name in members:
                there = rows.column(name).is_valid()
                both = None if seen is None else pc.and_(seen, there)
                if both is not None and (row := both.index(True).as_py()) >= 0:
                    raise BadRowError(name, row, f"is not the only one set of the oneof {oneof_name}")
                seen = there if seen is None else pc.or_(seen, there)


def _takes(field: FieldDescriptor, kind: pa.DataType) -> bool:
    """Whether the values of a column may fit a field."""
    if pa.types.is_null(kind):
        return True
    if _is_repeated(field):
        if _is_map(field):
            return bool(pa.types.is_map(kind))
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        return bool(is_list) and _takes_one(field, plain_type(kind.value_type))
    return _takes_one(field, kind)


def _takes_one(field: FieldDescriptor, kind: pa.DataType) -> bool:
    if field.type == _F.TYPE_BOOL:
        return bool(pa.types.is_boolean(kind))
    if field.type in _FLOATS:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    if field.type == _F.TYPE_ENUM:
        return bool(pa.types.is_integer(kind) or is_text(kind))
    if field.type in _NUMBERS:
        return bool(pa.types.is_integer(kind))
    if field.type == _F.TYPE_STRING:
        return is_text(kind)
    if field.type == _F.TYPE_BYTES:
        return is_bytes(kind)
    assert field.message_type is not None
    if field.message_type.full_name == _TIMESTAMP:
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_struct(kind))
    return bool(pa.types.is_struct(kind))


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    """Set a field of a message to the Python object that Arrow made of a value."""
    if _is_map(field):
        assert field.message_type is not None
        entry = field.message_type.fields_by_name["value"]
        items = getattr(message, field.name)
        for key, item in dict(value).items():
            if entry.message_type is None:
                items[key] = _scalar(entry, item)
            else:
                _fill(items[key], item)
    elif _is_repeated(field):
        many = getattr(message, field.name)
        for item in value:
            if field.message_type is None:
                many.append(_scalar(field, item))
            else:
                _fill(many.add(), item)
    elif field.message_type is None:
        setattr(message, field.name, _scalar(field, value))
    else:
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(part, value)


def _fill(message: Any, value: Any) -> None:
    if value is None:
        raise ValueError("a message in a list or map is null")
    descriptor = message.DESCRIPTOR
    if descriptor.full_name == _TIMESTAMP and isinstance(value, datetime.date):
        if not isinstance(value, datetime.datetime):
            value = datetime.datetime(value.year, value.month, value.day)
        message.FromNanoseconds(getattr(value, "value", None) or _nanoseconds(value))
        return
    for name, item in value.items():
        field = descriptor.fields_by_name.get(name)
        if field is None:
            raise ValueError(f"{descriptor.full_name} has no field {name!r}")
        if item is not None:
            _set(message, field, item)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.type == _F.TYPE_ENUM and isinstance(value, str):
        assert field.enum_type is not None
        return field.enum_type.values_by_name[value].number
    return value


def _nanoseconds(value: datetime.datetime) -> int:
    since = value.replace(tzinfo=value.tzinfo or datetime.timezone.utc) - datetime.datetime(
        1970, 1, 1, tzinfo=datetime.timezone.utc
    )
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def _enum_numbers(field: FieldDescriptor, column: pa.Array) -> pa.Array:
    """The numbers of an enum's values. The column may have their names instead."""
    assert field.enum_type is not None
    if is_text(column.type):
        numbers = {name: value.number for name, value in field.enum_type.values_by_name.items()}
        words = pc.dictionary_encode(column)
        known = [numbers.get(name) for name in words.dictionary.to_pylist()]
        if None in known:
            wrong = known.index(None)
            row = words.indices.index(wrong).as_py()
            raise BadRowError(
                field.name,
                row,
                f"is {words.dictionary[wrong].as_py()!r}, and {field.enum_type.full_name} has no such name",
            )
        return pa.array(known, pa.int32()).take(words.indices)
    column = _cast(field.name, column, pa.int32(), safe=True)
    if getattr(field.enum_type, "is_closed", False):
        numbers_there = pa.array([*field.enum_type.values_by_number], pa.int32())
        outside = pc.and_(pc.invert(pc.is_in(column, numbers_there)), column.is_valid())
        if (row := outside.index(True).as_py()) >= 0:
            raise BadRowError(
                field.name, row, f"is {column[row].as_py()}, and {field.enum_type.full_name} has no such number"
            )
    return column


def _cast(name: str, column: pa.Array, target: pa.DataType, *, safe: bool) -> pa.Array:
    if column.type == target:
        return column
    try:
        return column.cast(target, safe=safe)
    except pa.ArrowInvalid:
        for row in range(len(column)):
            _try_cast(name, row, column.slice(row, 1), target)
        raise


def _try_cast(name: str, row: int, one: pa.Array, target: pa.DataType) -> None:
    try:
        one.cast(target)
    except pa.ArrowInvalid as error:
        raise BadRowError(name, row, f"is {one[0].as_py()!r}, which is no {target}") from error


def _is_time(field: FieldDescriptor, kind: pa.DataType) -> bool:
    is_timestamp = field.message_type is not None and field.message_type.full_name == _TIMESTAMP
    return is_timestamp and bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_repeated(field: FieldDescriptor) -> bool:
    # protobuf before 6.31 has the label only, and later versions warn of it.
    return bool(field.is_repeated if hasattr(field, "is_repeated") else _label(field) == _F.LABEL_REPEATED)


def _is_required(field: FieldDescriptor) -> bool:
    return bool(field.is_required if hasattr(field, "is_required") else _label(field) == _F.LABEL_REQUIRED)


def _label(field: Any) -> Any:
    return field.label


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _said(field: FieldDescriptor) -> str:
    names = {number: name for name, number in vars(_F).items() if name.startswith("TYPE_")}
    kind = names[field.type].removeprefix("TYPE_").lower()
    if _is_map(field):
        kind = "map"
    elif field.message_type is not None:
        kind = field.message_type.full_name
    elif field.enum_type is not None:
        kind = field.enum_type.full_name
    return f"the field {field.name!r} ({'repeated ' if _is_repeated(field) and kind != 'map' else ''}{kind})"
