"""The pure-Python functions that accept slices, with their contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raccoon_fast.core._batch_py import Accumulator, Batch
from raccoon_fast.core._columns_py import Slices
from raccoon_fast.core._router_py import Router

__all__ = ["add_slices", "emit_slices"]


def emit_slices(
    entry: Accumulator | Router,
    types: str | Sequence[str],
    slices: Slices,
    most: int,
    refusal: object,
    receipts: dict[Any, None],
) -> bool:
    """Accept serialized events from index `slices.at` on, each as `emit` does but without the serializer.

    Afterwards `slices.at` is the index of the next event; after an error, the index of the event that could not be
    accepted.

    Args:
        entry: Gets the events. A Router must route to accumulators only.
        types: The type of all events, or one type per event.
        slices: The bytes of the events.
        most: The most events to accept.
        refusal: The object that `on_full` returns for an event that is not accepted. The call ends after this event.
        receipts: Gets the receipts of the batches that carry the events, each once, in order.

    Returns:
        Whether the last event was refused.

    Raises:
        Exception: As the accumulator's `emit`. The events before the failing one were accepted.
    """
    end = min(len(slices), slices.at + most)
    while slices.at < end:
        type_ = types if isinstance(types, str) else types[slices.at]
        receipt = entry._accept(type_, slices[slices.at])  # noqa: SLF001 - as the router does
        slices.at += 1
        if receipt is refusal:
            return True
        receipts[receipt] = None
    return False


def add_slices(batch: Batch, types: str | Sequence[str], slices: Slices) -> None:
    """Append the slices from index `slices.at` on to a batch, each as `add` does and with the same errors.

    Args:
        batch: Gets the events.
        types: The type of all events, or one type per event.
        slices: The bytes of the events. After an error, `slices.at` is the index of the failing event.
    """
    while slices.at < len(slices):
        batch.add(types if isinstance(types, str) else types[slices.at], slices[slices.at])
        slices.at += 1
