"""Reads tables of any library through Arrow's C interface, some rows at a time."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    import orjson  # noqa: F401 - a part of the same extra, which the columns are written with
    import pyarrow as pa
except ImportError as error:
    raise ImportError(f"tables need pyarrow and orjson ({error}): pip install 'raccoon_fast[arrow]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reader", "open_table"]

_PANDAS = b"pandas"
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


class Reader(NamedTuple):
    """A table's schema, and its rows as record batches, to be read once."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def open_table(table: Any) -> Reader:
    """Open a table for reading. Copies nothing if the library itself copies nothing.

    Args:
        table: Has `__arrow_c_stream__` (pandas 2.2, Polars, DuckDB, PyArrow's Table and RecordBatchReader) or
            `__arrow_c_array__` (PyArrow's RecordBatch). A stream is only read as far as rows are needed.

    Returns:
        A reader of its columns, without an unnamed pandas index. A range index is never included.

    Raises:
        TypeError: It is not a table.
    """
    if hasattr(table, "__arrow_c_stream__"):
        try:
            reader = pa.RecordBatchReader.from_stream(table)
        except (pa.ArrowInvalid, TypeError) as error:
            raise TypeError(f"{type(table).__name__} is no table: its stream has no columns ({error})") from error
        return _without_index(reader.schema, reader)
    if hasattr(table, "__arrow_c_array__"):
        try:
            batch = pa.record_batch(table)
        except (pa.ArrowInvalid, TypeError) as error:
            raise TypeError(f"{type(table).__name__} is no table: it has no columns ({error})") from error
        return _without_index(batch.schema, iter([batch]))
    raise TypeError(
        f"a table has __arrow_c_stream__ or __arrow_c_array__, as those of pandas 2.2, Polars, DuckDB and PyArrow, and "
        f"{type(table).__name__} has neither"
    )


def _without_index(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Reader:
    """Leave out the unnamed index that pandas adds when rows are selected; it is not a column of the user."""
    about = (schema.metadata or {}).get(_PANDAS)
    if about is None:
        return Reader(schema, batches)
    indexes = json.loads(about).get("index_columns", [])
    unnamed = {name for name in indexes if isinstance(name, str) and _UNNAMED_INDEX.fullmatch(name)}
    names = [name for name in schema.names if name not in unnamed]
    if len(names) == len(schema.names):
        return Reader(schema, batches)
    kept = pa.schema([schema.field(name) for name in names])
    return Reader(kept, (batch.select(names) for batch in batches))
