"""Adds slices to accumulators and batches, without the serializer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._batch_slices_py import add_slices, emit_slices
else:
    from raccoon_fast.core._batch_c import add_slices, emit_slices

__all__ = ["add_slices", "emit_slices"]
