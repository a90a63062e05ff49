"""Encodes a column as a field of JSON objects."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import orjson
import pyarrow as pa

from raccoon_fast.core.columns import Field
from raccoon_fast.serializers import JSON
from raccoon_fast.tables.kinds import (
    check_years,
    is_text,
    number_field,
    plain_type,
    python_values,
    text_field,
    unpacked,
)

__all__ = ["encode_value", "json_field", "not_json", "python_rows"]

_NULL = b"null"


def json_field(name: str, before: bytes, column: pa.Array) -> Field:
    """The values of a column as JSON.

    Args:
        name: The column's name, for errors.
        before: The text before each value.
        column: A column of a type that `not_json` accepts.

    Raises:
        BadRowError: A value cannot be written: a date outside JSON's range, or a map with two values for one key.
    """
    column = unpacked(column)
    kind = column.type
    if is_text(kind):
        return text_field("string", before, column, null=_NULL)
    if pa.types.is_boolean(kind):
        return number_field("boolean", before, column, null=_NULL)
    if pa.types.is_integer(kind):
        return number_field("integer", before, column, null=_NULL)
    if pa.types.is_decimal(kind):
        return text_field("text", before, column.cast(pa.string()), null=_NULL)
    if pa.types.is_null(kind):
        return text_field("text", before, pa.nulls(len(column), pa.string()), null=_NULL)
    return text_field("text", before, _texts(name, column), null=_NULL)


def python_rows(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with JSON columns as dicts."""
    columns = [_in_microseconds(unpacked(column)).to_pylist(**_options(column.type)) for column in rows.columns]
    return [dict(zip(rows.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def encode_value(value: Any) -> bytes:
    """Encode one Python value of such a row as JSON.

    Raises:
        TypeError: JSON cannot represent a part of it.
    """
    try:
        return orjson.dumps(value, _within, orjson.OPT_UTC_Z)
    except TypeError:
        return JSON(value)  # it accepts more types, and names those that it does not accept


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Python's times have no more digits."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_time(kind):
        return column.cast(pa.time64("us"), safe=False)
    return column


def _options(kind: pa.DataType) -> dict[str, Any]:
    """Prepare a conversion to Python in which maps become dicts."""
    return {"maps_as_pydicts": "strict"} if pa.types.is_nested(kind) else {}


def _texts(name: str, column: pa.Array) -> pa.Array:
    """Encode each value with orjson."""
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        check_years(name, column, "JSON's dates")
    values = python_values(name, _in_microseconds(column), "cannot be JSON", **_options(kind))
    if pa.types.is_nested(kind):
        return pa.array([orjson.dumps(value, _within, orjson.OPT_UTC_Z).decode() for value in values], pa.string())
    # Numbers and times contain no comma.
    return pa.array(orjson.dumps(values, None, orjson.OPT_UTC_Z)[1:-1].decode().split(","), pa.string())


def _within(value: Any) -> Any:
    """The hook for orjson: converts nested values that `not_json` accepts but orjson does not support."""
    if isinstance(value, decimal.Decimal):
        return orjson.Fragment(str(value).encode())
    if isinstance(value, datetime.datetime):  # of pandas, for nanoseconds
        return value.to_pydatetime(warn=False)  # type: ignore[attr-defined]
    raise TypeError(f"JSON has nothing for {type(value).__name__}")


def not_json(kind: pa.DataType) -> str | None:
    """The part of a type that JSON cannot represent; None if it can represent all of it."""
    kind = plain_type(kind)
    if pa.types.is_map(kind):
        if not is_text(kind.key_type):
            return f"{kind} has keys that are not strings"
        return not_json(kind.item_type)
    if pa.types.is_struct(kind):
        return next(filter(None, (not_json(field.type) for field in kind)), None)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return not_json(kind.value_type)
    if (
        is_text(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_null(kind)
    ):
        return None
    return f"it has nothing for {kind}"
