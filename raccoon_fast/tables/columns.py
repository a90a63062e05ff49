"""Encodes Arrow columns as events, some rows at a time.

The core writes rows straight from Arrow's buffers. Values that it does not support, such as floating-point numbers and
nested values, are first converted to JSON one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from raccoon_fast.core.columns import Slices, encode_rows
from raccoon_fast.errors import SerializationError
from raccoon_fast.serializers import PROTO, RAW
from raccoon_fast.tables.errors import BadRowError
from raccoon_fast.tables.json_fields import encode_value, json_field, not_json, python_rows
from raccoon_fast.tables.kinds import is_bytes, is_text, plain_type, refuse_nulls, slices_of, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raccoon_fast.tables.proto_fields import MessageFields

__all__ = ["SERIALIZERS", "Columns", "Part"]

SERIALIZERS = ("json", "raw")

# Rows encoded at once: enough to make the cost of a kernel call negligible, few enough to limit the memory.
_ROWS = 10_000
_BYTES = 64 << 20
# As Python's objects at once.
_FEW_ROWS = 1_000


class Part(NamedTuple):
    """Some rows as events, in order.

    Attributes:
        types: One type for all of them, or one per event.
        slices: The bytes of the events.
        first_row: The position of the first row in the table.
    """

    types: str | list[str]
    slices: Slices
    first_row: int

    def lists(self) -> tuple[list[str], list[bytes]]:
        """The type and the bytes of each event."""
        count = len(self.slices)
        types = [self.types] * count if isinstance(self.types, str) else self.types
        return types, [self.slices[index] for index in range(count)]


class Columns:
    """Selects the columns of an event, and how to encode them.

    Args:
        event_type: The type of all events; or None, and
        type_column: The column with each event's type.
        data_columns: The columns of its data, in this order; None for all but `type_column`.
        serializer: "json" for an object of all data columns, compact UTF-8 as JSON writes it; "raw" for the bytes of
            the one data column, which are binary, or text that is taken as UTF-8.
        message: A class of protobuf messages, or its descriptor, in place of `serializer`: each row is a message, whose
            fields are the data columns of the same names.

    Raises:
        TypeError, ValueError: An argument is invalid; the message names it.
    """

    def __init__(
        self,
        event_type: str | None = None,
        type_column: str | None = None,
        data_columns: Sequence[str] | None = None,
        serializer: str = "json",
        message: Any = None,
    ) -> None:
        for option, value in (("event_type", event_type), ("type_column", type_column)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{option} takes a str, not {value!r}")
        if (event_type is None) == (type_column is None):
            given = "neither" if event_type is None else "both"
            raise ValueError(f"give type_column, the column of the events' types, or event_type, not {given}")
        if event_type == "":
            raise ValueError("event_type must not be empty: the server routes by it")
        if serializer not in SERIALIZERS:
            raise ValueError(f"serializer must be one of {', '.join(SERIALIZERS)}, not {serializer!r}")
        if data_columns is not None:
            if isinstance(data_columns, str) or not all(isinstance(name, str) for name in data_columns):
                raise TypeError(f"data_columns takes the names of columns, not {data_columns!r}")
            if not data_columns or len(set(data_columns)) < len(data_columns):
                raise ValueError(f"data_columns must name columns, each once, not {data_columns!r}")
        if message is not None and serializer != "json":
            raise ValueError(f"give serializer or message, not both: serializer={serializer!r}")
        self._message: MessageFields | None = None
        if message is not None:
            from raccoon_fast.tables.proto_fields import MessageFields

            self._message = MessageFields(message)
        self._event_type = event_type
        self._type_column = type_column
        self._data_columns = None if data_columns is None else list(data_columns)
        self._serializer = serializer

    def __repr__(self) -> str:
        how = self._serializer if self._message is None else self._message.name
        data = "all" if self._data_columns is None else self._data_columns
        return f"<Columns {self._event_type!r} {self._type_column!r} {data} {how}>"

    def check(self, schema: pa.Schema) -> None:
        """Check the columns against a schema.

        Raises:
            ValueError: A column is missing or has an unsuitable type; the message names it.
        """
        names = self._names(schema)
        for name in names if self._type_column is None else [self._type_column, *names]:
            if schema.names.count(name) != 1:
                there = "is there more than once" if name in schema.names else "is not there"
                raise ValueError(f"column {name!r} {there}; the columns are {', '.join(schema.names)}")
        if self._type_column is not None and not is_text(plain_type(schema.field(self._type_column).type)):
            raise ValueError(
                f"type_column {self._type_column!r} must be of strings, not {schema.field(self._type_column).type}"
            )
        if self._serializer == "raw":
            if len(names) != 1:
                raise ValueError(f"serializer=raw sends one column; name it in data_columns, out of {', '.join(names)}")
            kind = plain_type(schema.field(names[0]).type)
            if not is_text(kind) and not is_bytes(kind):
                raise ValueError(f"serializer=raw sends binary or string columns, and {names[0]!r} is {kind}")
            return
        if self._message is not None:
            self._message.check(schema, names)
            return
        for name in names:
            if (wrong := not_json(schema.field(name).type)) is not None:
                raise ValueError(f"column {name!r} cannot be JSON: {wrong}; leave it out of data_columns, or cast it")

    def names(self, schema: pa.Schema) -> list[str]:
        """The columns to read from a table."""
        names = self._names(schema)
        return names if self._type_column is None or self._type_column in names else [self._type_column, *names]

    def parts(self, batch: pa.RecordBatch, first_row: int = 0, most_rows: int = _ROWS) -> Iterator[Part]:
        """Encode rows.

        Args:
            batch: A batch with a checked schema.
            first_row: The position of its first row in the table, for errors.
            most_rows: The largest number of rows at a time.

        Raises:
            SerializationError: A row cannot be an event. Its `path` and `index` name column and position; the rows
                before it have been yielded.
        """
        step = max(1, min(most_rows, _BYTES * batch.num_rows // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, step):
            rows = batch.slice(start, step)
            wrong: BadRowError | None = None
            while rows.num_rows:
                try:
                    yield Part(self._types(rows), self._slices(rows), first_row + start)
                    break
                except BadRowError as error:
                    wrong = error
                    rows = rows.slice(0, error.row)
            if wrong is not None:
                row = first_row + start + wrong.row
                raise SerializationError(
                    f"column {wrong.column!r}, row {row}: {wrong}",
                    index=row,
                    event_type=self._event_type or "",
                    path=wrong.column,
                ) from wrong

    def events(self, batch: pa.RecordBatch, first_row: int = 0) -> Iterator[tuple[list[str], list[bytes]]]:
        """Like `parts`, with types and bytes as lists."""
        for part in self.parts(batch, first_row):
            yield part.lists()

    def rows(
        self, batch: pa.RecordBatch, first_row: int = 0, *, has_data: bool = True
    ) -> Iterator[tuple[int, str, Any, bytes]]:
        """Encode rows one by one, for callers that check them.

        Args:
            batch: As `parts`.
            first_row: As `parts`.
            has_data: Whether the caller needs the events' data.

        Yields:
            The row's position in the table, its event's type, the data (a dict, with "raw" bytes, or the message; None
            unless `has_data`), and the bytes.

        Raises:
            SerializationError: As `parts`.
        """
        for part in self.parts(batch, first_row, _FEW_ROWS):
            first, count = part.first_row, len(part.slices)
            types, encoded = part.lists()
            data: list[Any] = encoded
            if not has_data:
                data = [None] * count
            elif self._message is not None:
                data = [self._message.parse(one) for one in encoded]
            elif self._serializer == "json":
                data = python_rows(batch.slice(first - first_row, count).select(self._names(batch.schema)))
            yield from zip(range(first, first + count), types, data, encoded, strict=True)

    def encode(self, event_type: str, data: Any, row: int) -> bytes:
        """Encode data from `rows`.

        Raises:
            SerializationError: The data cannot be encoded.
        """
        try:
            if self._message is not None:
                return PROTO(data)
            return RAW(data) if self._serializer == "raw" else encode_value(data)
        except TypeError as error:
            raise SerializationError(
                f"row {row}, as before_send returned it: {error}", index=row, event_type=event_type
            ) from error

    def _slices(self, rows: pa.RecordBatch) -> Slices:
        names = self._names(rows.schema)
        if self._serializer == "raw":
            column = rows.column(names[0])
            refuse_nulls(column, names[0])
            return slices_of(column)
        if self._message is not None:
            return self._message.encode(names, rows)
        fields = []
        before = b"{"
        for name in names:
            key = b"%b%b:" % (before, orjson.dumps(name))
            fields.append(json_field(name, key, rows.column(name)))
            before = b","
        return encode_rows(fields, rows.num_rows, b"}" if fields else b"{}")

    def _names(self, schema: pa.Schema) -> list[str]:
        return self._data_columns or [name for name in schema.names if name != self._type_column]

    def _types(self, rows: pa.RecordBatch) -> str | list[str]:
        if self._type_column is None:
            assert self._event_type is not None
            return self._event_type
        column = unpacked(rows.column(self._type_column))
        refuse_nulls(column, self._type_column)
        # Few types; all events of a type share one str object.
        column = pc.dictionary_encode(column)
        types = column.dictionary.to_pylist()
        return [types[index] for index in column.indices.to_pylist()]
