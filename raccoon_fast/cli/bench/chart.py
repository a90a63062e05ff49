"""Draws latencies: one bar per rate on a logarithmic axis, in terminal characters and as SVG."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PARTS", "Bar", "draw_svg", "draw_text"]

#: For each part of a bar: where it ends, its character and its colour. The first part is blank.
PARTS = (
    ("p50", " ", "none"),
    ("p90", "█", "#1b6ca8"),
    ("p99", "▓", "#5fa3d0"),
    ("p99.9", "▒", "#a9cfe8"),
    ("max", "░", "#dcebf5"),
)
_LEAST_MS = 1e-3  # a logarithmic axis has no zero


class Bar(NamedTuple):
    """One rate.

    Attributes:
        label: The rate.
        values_ms: p50, p90, p99, p99.9 and max, as PARTS names them.
    """

    label: str
    values_ms: Sequence[float]


class _Axis:
    """A logarithmic axis between two round numbers."""

    def __init__(self, bars: Sequence[Bar], length: float) -> None:
        values = [max(value, _LEAST_MS) for bar in bars for value in bar.values_ms]
        self._low = math.log10(_round_down(min(values)))
        self._high = math.log10(_round_down(max(values) * 2.5))
        self._length = length

    def position(self, value_ms: float) -> float:
        """The position of a value, from 0 to the axis's length."""
        share = (math.log10(max(value_ms, _LEAST_MS)) - self._low) / (self._high - self._low)
        return min(max(share, 0.0), 1.0) * self._length

    def ticks(self) -> list[tuple[float, str]]:
        """Position and label of 1, 2 and 5 times each power of ten."""
        exponents = range(math.floor(self._low), math.ceil(self._high) + 1)
        values = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
        inside = [value for value in values if self._low - 1e-9 <= math.log10(value) <= self._high + 1e-9]
        return [(self.position(value), f"{value:g}") for value in inside]


def draw_text(bars: Sequence[Bar], width: int) -> list[str]:
    """Lines of at most `width` characters."""
    margin = max(len(bar.label) for bar in bars)
    axis = _Axis(bars, max(width - margin - 8, 10))
    lines = []
    for bar in bars:
        cells = ""
        for value_ms, (_, character, _) in zip(bar.values_ms, PARTS, strict=True):
            # A part that is too short to see still gets one character.
            end = max(round(axis.position(value_ms)), len(cells) + (character != " "))
            cells += character * (end - len(cells))
        lines.append(f"{bar.label:>{margin}}  {cells}")
    scale = ""
    for position, text in axis.ticks():
        at = round(position)
        if at >= len(scale) + bool(scale):
            scale += " " * (at - len(scale)) + text
    lines.append(f"{'':{margin}}  {scale} ms")
    keys = [f"{character} {PARTS[index][0]} to {name}" for index, (name, character, _) in enumerate(PARTS[1:])]
    lines.append(f"{'':{margin}}  {'   '.join(keys)}")
    return lines


def draw_svg(bars: Sequence[Bar], title: str) -> str:
    """An SVG document, 800 pixels wide."""
    left, right, top, row = 110, 30, 70, 30
    axis = _Axis(bars, 800 - left - right)
    bottom = top + row * len(bars)
    shapes = [f'<text x="{left}" y="28" font-size="16">{html.escape(title)}</text>']
    for position, text in axis.ticks():
        x = left + position
        shapes.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>')
        shapes.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    for number, bar in enumerate(bars):
        y = top + row * number
        shapes.append(f'<text x="{left - 10}" y="{y + 20}" text-anchor="end">{html.escape(bar.label)}</text>')
        for index, (name, _, colour) in enumerate(PARTS[1:]):
            start, end = (left + axis.position(bar.values_ms[part]) for part in (index, index + 1))
            said = f"{html.escape(bar.label)}: {name} {bar.values_ms[index + 1]:.3g} ms"
            shapes.append(
                f'<rect x="{start:.1f}" y="{y + 5}" width="{max(end - start, 1):.1f}" height="{row - 10}" '
                f'fill="{colour}" stroke="#1b6ca8" stroke-width="0.5"><title>{said}</title></rect>'
            )
    for index, (name, _, colour) in enumerate(PARTS[1:]):
        x = left + 120 * index
        shapes.append(f'<rect x="{x}" y="42" width="14" height="14" fill="{colour}" stroke="#1b6ca8"/>')
        shapes.append(f'<text x="{x + 20}" y="54">{PARTS[index][0]} to {name}</text>')
    shapes.append(f'<text x="{left - 10}" y="{top - 8}" text-anchor="end">events/s</text>')
    shapes.append(
        f'<text x="{left}" y="{bottom + 38}">milliseconds from when an event was due until its acknowledgement</text>'
    )
    height = bottom + 50
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="800" height="{height}" viewBox="0 0 800 {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="800" height="{height}" fill="white"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def _round_down(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((factor * power for factor in (5, 2) if factor * power <= value), power)
