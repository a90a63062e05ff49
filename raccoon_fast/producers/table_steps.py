"""How a producer goes through a table: some rows at a time, by way of its lanes, its samples and `before_send`."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raccoon_fast.core.columns import Slices
from raccoon_fast.errors import RaccoonError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raccoon_fast.core.batch import Accumulator, Router

__all__ = ["Step", "naming_row", "one_slice"]


@dataclass
class Step:
    """Events of a table that go to one place.

    Attributes:
        entry: Where they go.
        types: The type of all of them, or that of each.
        slices: Their bytes.
        first_row: The place of the first one in the table.
    """

    entry: Accumulator | Router
    types: str | Sequence[str]
    slices: Slices
    first_row: int


def one_slice(data: bytes) -> Slices:
    """The bytes of one event."""
    return Slices(data, struct.pack("=qq", 0, len(data)), 0, 1, 8)


@contextlib.contextmanager
def naming_row(step: Step) -> Iterator[None]:
    """Tell an error that an event met where the row is."""
    try:
        yield
    except SerializationError:
        raise
    except (RaccoonError, TypeError, ValueError) as error:
        if len(error.args) == 1:
            error.args = (f"row {step.first_row + step.slices.at} of the table: {error}",)
        raise
