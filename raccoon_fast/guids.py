"""Guids of requests: the text of random UUIDs (RFC 4122, version 4)."""

from __future__ import annotations

import os

__all__ = ["new_guid"]

# A system call serves so many.
_DRAWN = 64
_VERSION_4 = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))

_ready: list[str] = []


def new_guid() -> str:
    """A fresh guid, as `str(uuid.uuid4())` for a fraction of its cost. Safe from any thread."""
    try:
        return _ready.pop()
    except IndexError:
        first, *others = _draw()
        _ready.extend(others)
        return first


def _draw() -> list[str]:
    octets = bytearray(os.urandom(16 * _DRAWN))
    octets[6::16] = octets[6::16].translate(_VERSION_4)
    octets[8::16] = octets[8::16].translate(_VARIANT)
    digits = octets.hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-{digits[at + 12 : at + 16]}-"
        f"{digits[at + 16 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, len(digits), 32)
    ]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ready.clear)  # they are the parent's
