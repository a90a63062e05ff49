"""Batches of events, and the accumulator that collects events into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._batch_py import Accumulator, Batch, Buffer, Router, types_of
else:
    from raccoon_fast.core._batch_c import Accumulator, Batch, Buffer, Router, types_of

__all__ = ["Accumulator", "Batch", "Buffer", "Router", "types_of"]
