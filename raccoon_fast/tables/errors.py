"""Errors of values in columns."""

from __future__ import annotations

__all__ = ["BadRowError"]


class BadRowError(Exception):
    """A row that cannot be an event; for callers that know the position of their rows in the table.

    Attributes:
        column: The name of the column with the bad value.
        row: The row's position among the encoded rows.
    """

    def __init__(self, column: str, row: int, why: str) -> None:
        super().__init__(why)
        self.column = column
        self.row = row
