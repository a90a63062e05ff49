"""Makes events from columns: writes rows from Arrow's buffers, and reads events that follow one another in a buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._columns_py import Field, Slices, encode_rows
else:
    from raccoon_fast.core._columns_c import Field, Slices, encode_rows

__all__ = ["Field", "Slices", "encode_rows"]
