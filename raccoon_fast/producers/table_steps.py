"""The steps in which a producer accepts a table: some rows at a time, or one if it samples or has `before_send`."""

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
    """Events of a table to add in one step.

    Attributes:
        entry: Accepts the events.
        types: One type for all of them, or one per event.
        slices: The bytes of the events.
        first_row: The position of the first row in the table.
    """

    entry: Accumulator | Router
    types: str | Sequence[str]
    slices: Slices
    first_row: int


def one_slice(data: bytes) -> Slices:
    """Slices with the bytes of one event."""
    return Slices(data, struct.pack("=qq", 0, len(data)), 0, 1, 8)


@contextlib.contextmanager
def naming_row(step: Step) -> Iterator[None]:
    """Add the row's position in the table to an error about an event."""
    try:
        yield
    except SerializationError:
        raise
    except (RaccoonError, TypeError, ValueError) as error:
        if len(error.args) == 1:
            error.args = (f"row {step.first_row + step.slices.at} of the table: {error}",)
        raise
