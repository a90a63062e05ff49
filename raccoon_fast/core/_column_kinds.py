"""The kinds of fields and the checks of arguments, which both forms of Slices and Field share."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["KINDS", "check_field", "check_slices", "refuse_offset"]

KINDS = ("integer", "boolean", "string", "text", "varint", "zigzag", "fixed", "flag", "bytes", "moment", "finished")
"""The kinds of a Field, which its docstring explains."""

_OF_OFFSETS = ("string", "text", "bytes", "finished")
_OF_BITS = ("boolean", "flag")
# Keeps sums of lengths from overflowing.
_MOST_ROWS = 1 << 40


def check_slices(first: int, count: int, width: int) -> None:
    """Raise unless these numbers are valid for Slices."""
    if width not in (4, 8):
        raise ValueError(f"width should be 4 or 8 bytes, not {width!r}")
    _check_numbers(first=first, count=count)


def check_field(
    kind: str,
    before: bytes,
    rows: int,
    first: int,
    width: int,
    null: bytes,
    per_second: int,
    values: object,
    offsets: object,
    is_signed: bool,
) -> None:
    """Raise unless these arguments are valid for a Field."""
    if kind not in KINDS:
        raise ValueError(f"kind should be one of {', '.join(KINDS)}, not {kind!r}")
    if not isinstance(before, bytes) or not isinstance(null, bytes):
        raise TypeError("before and null should be bytes")
    _check_numbers(rows=rows, first=first)
    if (offsets is not None) != (kind in _OF_OFFSETS):
        raise ValueError(f"a field of kind {kind} has {'no ' if offsets is not None else ''}offsets")
    if offsets is None and values is None:
        raise ValueError(f"a field of kind {kind} needs values")
    widths = {"moment": (8,), "fixed": (4, 8)}.get(kind, (4, 8) if kind in _OF_OFFSETS else (1, 2, 4, 8))
    if kind not in _OF_BITS and width not in widths:
        raise ValueError(f"width of kind {kind} should be one of {widths}, not {width!r}")
    if kind in ("zigzag", "moment") and not is_signed:
        raise ValueError(f"a field of kind {kind} has signed values")
    if per_second not in (1, 1_000, 1_000_000, 1_000_000_000):
        raise ValueError(f"per_second should be 1, or a thousand, million or billion, not {per_second!r}")


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int):
            raise TypeError(f"{name} should be a whole number, not {type(value).__name__}")
        if not 0 <= value <= _MOST_ROWS:
            raise ValueError(f"{name} should be from 0 to {_MOST_ROWS}, not {value}")


def refuse_offset(start: int, end: int, size: int) -> NoReturn:
    """Raise for offsets that lie outside the data or are in the wrong order."""
    raise ValueError(f"offsets {start} and {end} are no part of {size} bytes of data: the column is broken")
