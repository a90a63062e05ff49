"""Finds the answers in a WebSocket server's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._frames_py import AnswerReader
else:
    from raccoon_fast.core._frames_c import AnswerReader

__all__ = ["AnswerReader"]
