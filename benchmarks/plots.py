"""Draws charts as plain SVG: bars, and lines over an axis. Colour-blind readers can tell the colours apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from results import number

WIDTH = 860
OURS, OURS_TOO, PEER, FLOOR = "#0072B2", "#56B4E9", "#E69F00", "#999999"  # from the palette of Okabe and Ito
_LINES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")
_MARKS = ("circle", "square", "triangle", "diamond", "cross")
_TEXT, _FAINT, _GRID = "#222222", "#666666", "#DDDDDD"


@dataclass
class Bars:
    """One block of bars, each with a label, a value and a colour."""

    title: str
    bars: list[tuple[str, float, str]] = field(default_factory=list)


@dataclass
class Lines:
    """One panel of lines over an axis."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = True
    log_y: bool = False
    marks: bool = True


def bar_chart(title: str, unit: str, blocks: Iterable[Bars]) -> str:
    """Draw horizontal bars; each block has its own scale, which starts at zero."""
    label_width, value_width, row, top = 240, 150, 22, 52
    room = WIDTH - label_width - value_width
    parts: list[str] = []
    y = top
    for block in blocks:
        parts.append(_text(16, y + 14, block.title, weight="bold"))
        y += row + 4
        most = max(value for _, value, _ in block.bars)
        ours = next((value for _, value, colour in block.bars if colour == OURS), 0.0)
        for label, value, colour in block.bars:
            width = max(1.0, value / most * room)
            said = number(value)
            if ours and colour != OURS:
                said += f"  ({number(value / ours)} x)"
            parts.append(_text(label_width - 8, y + 14, label, anchor="end"))
            parts.append(
                f'<rect x="{label_width}" y="{y + 2}" width="{width:.1f}" height="{row - 6}" fill="{colour}"/>'
            )
            parts.append(_text(label_width + width + 6, y + 14, said))
            y += row
        y += 12
    return _svg(y + 4, title, unit, parts)


def line_chart(title: str, unit: str, panels: Sequence[Lines], in_a_row: int = 3) -> str:
    """Draw panels side by side, each with axes and a legend."""
    width, height, top = WIDTH / in_a_row, 250, 46
    parts: list[str] = []
    for position, panel in enumerate(panels):
        x, y = position % in_a_row * width, top + position // in_a_row * height
        parts += _panel(panel, x + 58, y + 26, width - 74, height - 78 - 14 * _legend_rows(panel, width))
    return _svg(top + math.ceil(len(panels) / in_a_row) * height, title, unit, parts)


def _legend_rows(panel: Lines, width: float) -> int:
    return math.ceil(len(panel.series) / _legend_columns(panel, width)) if len(panel.series) > 1 else 0


def _legend_columns(panel: Lines, width: float) -> int:
    longest = max(len(name) for name in panel.series)
    return max(1, int((width - 74) // (longest * 6.5 + 24)))


def _panel(panel: Lines, left: float, top: float, width: float, height: float) -> list[str]:
    points = [point for line in panel.series.values() for point in line]
    x_axis = _Axis([x for x, _ in points], panel.log_x, left, left + width, is_tight=True)
    y_axis = _Axis([y for _, y in points], panel.log_y, top + height, top)
    parts = [_text(left - 40, top - 10, panel.title, weight="bold")]
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(left - 5, y + 4, _short(tick), anchor="end", fill=_FAINT, size=11))
    parts += [
        _text(x_axis.at(tick), top + height + 15, _short(tick), anchor="middle", fill=_FAINT, size=11)
        for tick in x_axis.ticks
    ]
    parts.append(
        f'<line x1="{left}" y1="{top + height}" x2="{left + width:.1f}" y2="{top + height}" stroke="{_FAINT}"/>'
    )
    parts.append(_text(left + width / 2, top + height + 31, panel.x_label, anchor="middle", fill=_FAINT, size=11))
    parts.append(
        f'<text transform="translate({left - 44:.1f},{top + height / 2:.1f}) rotate(-90)" text-anchor="middle" '
        f'font-size="11" fill="{_FAINT}">{escape(panel.y_label)}</text>'
    )
    columns = _legend_columns(panel, width + 74)
    for number_, (name, line) in enumerate(panel.series.items()):
        colour, mark = _LINES[number_ % len(_LINES)], _MARKS[number_ % len(_MARKS)]
        where = [(x_axis.at(x), y_axis.at(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if panel.marks:
            parts += [_mark(mark, x, y, colour) for x, y in where]
        if len(panel.series) > 1:
            x = left - 30 + number_ % columns * (width + 40) / columns
            y = top + height + 48 + 14 * (number_ // columns)
            parts += [_mark(mark, x, y - 4, colour), _text(x + 9, y, name, size=11)]
    return parts


class _Axis:
    """Maps values to positions on a linear or logarithmic axis."""

    def __init__(self, values: Sequence[float], is_log: bool, start: float, end: float, is_tight: bool = False) -> None:
        self._is_log = is_log
        self._start, self._end = start, end
        least, most = min(values), max(values)
        if is_log:
            low, high = math.log10(least), math.log10(most)
            if not is_tight:
                low, high = math.floor(low), math.ceil(high)
            self._low, self._high = low, max(high, low + 1e-9)
            decades = range(math.floor(low + 1e-9), math.ceil(high - 1e-9) + 1)
            self.ticks = [10.0**decade for decade in decades if low - 1e-6 <= decade <= high + 1e-6]
            if is_tight and len(values) and len({*values}) <= 6:
                self.ticks = sorted({*values})
        else:
            step = _round_step(most / 4 or 1)
            self._low, self._high = 0.0, most if is_tight else step * math.ceil(most / step or 1)
            self.ticks = [step * count for count in range(int(self._high / step + 1e-9) + 1)]

    def at(self, value: float) -> float:
        value = math.log10(value) if self._is_log else value
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)


def _round_step(step: float) -> float:
    size = 10 ** math.floor(math.log10(step))
    return next(times * size for times in (1, 2, 5, 10) if times * size >= step)


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _mark(mark: str, x: float, y: float, colour: str) -> str:
    if mark == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    shape = {
        "square": "M-3,-3h6v6h-6z",
        "triangle": "M0,-4l4,7h-8z",
        "diamond": "M0,-4.5l4.5,4.5l-4.5,4.5l-4.5,-4.5z",
        "cross": "M-4,-1.5h2.5v-2.5h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5z",
    }[mark]
    return f'<path transform="translate({x:.1f},{y:.1f})" d="{shape}" fill="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", fill: str = _TEXT, size: int = 13
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="{fill}">{escape(text)}</text>'
    )


def _svg(height: float, title: str, unit: str, parts: Iterable[str]) -> str:
    head = [_text(16, 26, title, weight="bold", size=16), _text(WIDTH - 16, 26, unit, anchor="end", fill=_FAINT)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="Helvetica, Arial, sans-serif" role="img">',
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            *head,
            *parts,
            "</svg>\n",
        ]
    )
