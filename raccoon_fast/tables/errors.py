"""What is wrong with a value of a column."""

from __future__ import annotations

__all__ = ["BadRowError"]


class BadRowError(Exception):
    """A row that makes no event; for the code that knows where its rows stand in the table.

    Attributes:
        column: The name of the column whose value is wrong.
        row: The row's place among those that were to be encoded.
    """

    def __init__(self, column: str, row: int, why: str) -> None:
        super().__init__(why)
        self.column = column
        self.row = row
