"""Encoded rows of a table as the events of one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.core.slices import add_slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raccoon_fast.core.batch import Batch
    from raccoon_fast.core.columns import Slices

__all__ = ["EncodedRows", "Run"]


class Run(NamedTuple):
    """Events that follow one another in one buffer.

    Attributes:
        types: One type for all of them, or one per event.
        slices: The bytes of the events.
    """

    types: str | Sequence[str]
    slices: Slices


class EncodedRows:
    """The events of one `emit_batch`, as (type, bytes) pairs.

    `add_to` copies them into a batch from the buffers that they share. Iteration makes a Python object per event.

    Args:
        runs: The events, in order.

    Attributes:
        runs: As given.
    """

    __slots__ = ("runs",)

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs

    def __len__(self) -> int:
        return sum(len(run.slices) for run in self.runs)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for types, slices in self.runs:
            for index in range(len(slices)):
                yield types if isinstance(types, str) else types[index], slices[index]

    @property
    def nbytes(self) -> int:
        """The bytes of all events together."""
        return sum(slices.nbytes(0, len(slices)) for _, slices in self.runs)

    def add_to(self, batch: Batch) -> None:
        """Append the events to a batch; raises as its `add`."""
        for types, slices in self.runs:
            slices.at = 0
            add_slices(batch, types, slices)
