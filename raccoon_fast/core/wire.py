"""Protobuf's wire format: reads and writes varints, reads tags and lengths, and skips unknown fields.

Source: https://protobuf.dev/programming-guides/encoding/. Where that page says nothing, the code follows
google.protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._wire_py import encode_varint, skip_field, take_length, take_tag, take_varint
else:
    from raccoon_fast.core._wire_c import encode_varint, skip_field, take_length, take_tag, take_varint

__all__ = ["encode_varint", "skip_field", "take_length", "take_tag", "take_varint"]
