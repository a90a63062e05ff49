"""Protobuf's wire format: varints, tags, lengths, and the skipping of unknown fields.

Source: https://protobuf.dev/programming-guides/encoding/; where that page is silent, what google.protobuf does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._wire_py import encode_varint, skip_field, take_length, take_tag, take_varint
else:
    from raccoon_fast.core._wire_c import encode_varint, skip_field, take_length, take_tag, take_varint

__all__ = ["encode_varint", "skip_field", "take_length", "take_tag", "take_varint"]
