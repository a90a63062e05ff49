"""What a method that takes a table is told. Imports pyarrow only once there is a table."""

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
    """What makes events of rows. Imports pyarrow, which only tables need.

    Raises:
        ImportError: It is not installed; the message says what to install.
        TypeError, ValueError: An argument is not what it should be.
    """
    from raccoon_fast.tables import arrow  # noqa: F401 - first: it says what is missing
    from raccoon_fast.tables.columns import Columns

    return Columns(event_type, type_column, data_columns, serializer, message)


def table_reader(table: Any, columns: Columns) -> Iterator[Any]:
    """The table's batches, once its columns are checked; errors as `open_table` and `Columns.check`."""
    from raccoon_fast.tables.arrow import open_table

    reader = open_table(table)
    columns.check(reader.schema)
    return reader.batches
