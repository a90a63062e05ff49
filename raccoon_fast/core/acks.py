"""Matches acknowledgements to the pending requests of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._acks_py import AckTable, Verdict
else:
    from raccoon_fast.core._acks_c import AckTable, Verdict

__all__ = ["AckTable", "Verdict"]
