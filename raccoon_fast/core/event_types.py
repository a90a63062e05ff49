"""Counts the types of a request's events without decoding the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._event_types_py import tally_types
else:
    from raccoon_fast.core._event_types_c import tally_types

__all__ = ["tally_types"]
