"""Groups of Arrow types, and conversion of columns to the simplest type of each group."""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raccoon_fast.core.columns import Field, Slices
from raccoon_fast.tables.errors import BadRowError

__all__ = [
    "check_years",
    "is_bytes",
    "is_text",
    "number_field",
    "plain_type",
    "python_values",
    "refuse_nulls",
    "slices_of",
    "text_field",
    "unpacked",
]

# The years 1 to 9999 are those of Python's datetime, of RFC 3339 and of protobuf's Timestamp.
_FIRST_DAY = (datetime.date.min - datetime.date(1970, 1, 1)).days
_LAST_DAY = (datetime.date.max - datetime.date(1970, 1, 1)).days
_UNREADABLE = (ValueError, OverflowError, KeyError, TypeError)
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The value type of a dictionary type; any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def unpacked(column: pa.Array) -> pa.Array:
    """The values of a dictionary column, row by row; any other column unchanged."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def is_text(kind: pa.DataType) -> bool:
    """Whether it is a string type of any layout."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether it is a binary type of any layout."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def refuse_nulls(column: pa.Array, name: str) -> None:
    """Raise BadRowError for the first null."""
    if column.null_count:
        raise BadRowError(name, column.is_null().index(True).as_py(), "must not be null")


def python_values(name: str, column: pa.Array, why: str, **options: Any) -> list[Any]:
    """The values of a column as Python objects.

    Args:
        name: The column's name, for the error.
        column: The column.
        why: The start of the error's text.
        **options: Options of `to_pylist`.

    Raises:
        BadRowError: Python has no such value, for example a duration out of range; the first one is named.
    """
    try:
        values: list[Any] = column.to_pylist(**options)
    except _UNREADABLE:
        for row, value in enumerate(column):
            _try_value(name, row, value, why, options)
        raise
    return values


def _try_value(name: str, row: int, value: pa.Scalar, why: str, options: dict[str, Any]) -> None:
    try:
        value.as_py(**options)
    except _UNREADABLE as error:
        text = str(error.args[0] if error.args else error)
        raise BadRowError(name, row, f"{why}: {text}") from error


def check_years(name: str, column: pa.Array, whose: str) -> None:
    """Raise BadRowError for the first date or timestamp that is out of the years 1 to 9999."""
    kind = column.type
    if pa.types.is_date32(kind):
        numbers, per_day = column.view(pa.int32()), 1
    else:
        numbers, per_day = column.view(pa.int64()), _PER_DAY["ms" if pa.types.is_date64(kind) else kind.unit]
    first, end = _FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day
    found = pc.min_max(numbers).as_py()
    if found["min"] is None or (found["min"] >= first and found["max"] < end):
        return
    for row, number in enumerate(numbers.to_pylist()):
        if number is not None and not first <= number < end:
            year = f"of day {number // per_day} from 1970-01-01 on"
            raise BadRowError(name, row, f"has a date {year}, and {whose} are of the years 1 to 9999")


def number_field(kind: str, before: bytes, column: pa.Array, **options: Any) -> Field:
    """A field of integers, times, floats or bits, read in place."""
    validity, values = column.buffers()
    return Field(
        kind,
        before,
        len(column),
        values=b"" if values is None else values,
        validity=validity if column.null_count else None,
        first=column.offset,
        width=0 if pa.types.is_boolean(column.type) else column.type.bit_width // 8,
        is_signed=not pa.types.is_unsigned_integer(column.type),
        **options,
    )


def text_field(kind: str, before: bytes, column: pa.Array, **options: Any) -> Field:
    """A field of strings or binary values."""
    column, width = _with_offsets(column)
    validity, offsets, data = column.buffers()
    return Field(
        kind,
        before,
        len(column),
        values=data,
        offsets=_NO_OFFSETS if offsets is None or not len(column) else offsets,
        validity=validity if column.null_count else None,
        first=column.offset if len(column) else 0,
        width=width,
        **options,
    )


def slices_of(column: pa.Array) -> Slices:
    """The bytes of a string or binary column without nulls; nothing is copied."""
    column, width = _with_offsets(column)
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return Slices(None, _NO_OFFSETS, 0, 0, width)
    return Slices(data, offsets, column.offset, len(column), width)


# An empty column may have no offsets.
_NO_OFFSETS = bytes(8)


def _with_offsets(column: pa.Array) -> tuple[pa.Array, int]:
    """The column as one data buffer with offsets, and the width of the offsets."""
    column = unpacked(column)
    kind = column.type
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return column, 8
    if not pa.types.is_string(kind) and not pa.types.is_binary(kind):
        # Views, and values of fixed size. Large types, because the data may exceed 2 GiB.
        column = column.cast(pa.large_string() if is_text(kind) else pa.large_binary())
        return column, 8
    return column, 4
