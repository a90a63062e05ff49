"""The options of methods that take a table. Imports pyarrow only when a table is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raccoon_fast.tables.columns import Columns

__all__ = ["table_columns", "table_reader"]


def table_columns(
    event_type: str | None,
    type_column: str | None,
    data_columns: Sequence[str] | None,
    serializer: str,
    message: Any = None,
) -> Columns:
    """Make the encoder of rows. Imports pyarrow, which only tables need.

    Raises:
        ImportError: pyarrow is not installed; the message says what to install.
        TypeError, ValueError: An argument is invalid.
    """
    from raccoon_fast.tables import arrow  # noqa: F401 - first: it says what is missing
    from raccoon_fast.tables.columns import Columns

    return Columns(event_type, type_column, data_columns, serializer, message)


def table_reader(table: Any, columns: Columns) -> Iterator[Any]:
    """Open a table and check its columns; raises as `open_table` and `Columns.check`."""
    from raccoon_fast.tables.arrow import open_table

    reader = open_table(table)
    columns.check(reader.schema)
    return reader.batches
