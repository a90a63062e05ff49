"""The pure-Python form of what takes slices; its contract is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raccoon_fast.core._batch_py import FINISHED, Accumulator, Batch
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
    """Accept events whose bytes are finished, from number `slices.at` on, each as `emit` does: no serializer runs.

    `slices.at` is then the place of the next one; after an error, that of the event that could not be accepted.

    Args:
        entry: Where they go. A Router must have accumulators only.
        types: The type of all events, or that of each.
        slices: Their bytes.
        most: So many, at most.
        refusal: What `on_full` answers for an event that is not accepted; the call ends behind it.
        receipts: Gets the receipts of the batches that carry them, each once, in order.

    Returns:
        Whether the last event was refused.

    Raises:
        Exception: As the accumulator's `emit`; those before the event were accepted.
    """
    end = min(len(slices), slices.at + most)
    while slices.at < end:
        type_ = types if isinstance(types, str) else types[slices.at]
        receipt = entry._accept(type_, slices[slices.at], FINISHED)  # noqa: SLF001 - as the router does
        slices.at += 1
        if receipt is refusal:
            return True
        receipts[receipt] = None
    return False


def add_slices(batch: Batch, types: str | Sequence[str], slices: Slices) -> None:
    """Append to a batch what `slices` has from `slices.at` on, each as `add` does; errors as there.

    Args:
        batch: Gets the events.
        types: The type of all events, or that of each.
        slices: Their bytes; its `at` is where an error came up.
    """
    while slices.at < len(slices):
        batch.add(types if isinstance(types, str) else types[slices.at], slices[slices.at])
        slices.at += 1
