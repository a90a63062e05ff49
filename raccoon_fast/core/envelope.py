"""Builds requests in protobuf and JSON, in wire format from the first event on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION
from raccoon_fast.core._request import MAX_EVENTS_BYTES, MAX_GUID_BYTES

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._envelope_py import JsonEnvelope, ProtoEnvelope
else:
    from raccoon_fast.core._envelope_c import JsonEnvelope, ProtoEnvelope

__all__ = ["MAX_EVENTS_BYTES", "MAX_GUID_BYTES", "JsonEnvelope", "ProtoEnvelope"]
