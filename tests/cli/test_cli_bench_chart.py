"""The chart of latencies, as text and as SVG."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest

from raccoon_fast.cli.bench.chart import Bar, draw_svg, draw_text

BARS = [Bar("1,000", (0.4, 0.7, 1.9, 4.0, 9.0)), Bar("20,000", (3.0, 8.0, 40.0, 90.0, 250.0))]
SVG = "{http://www.w3.org/2000/svg}"


def test_text():
    assert draw_text(BARS, 60) == [
        " 1,000      ███▓▓▓▓▓▓▒▒▒▒▒░░░░",
        "20,000                  ██████▓▓▓▓▓▓▓▓▓▒▒▒▒▒░░░░░░",
        "        0.2  0.5 1    2    5   10  20   50   100 200  500 ms",
        "        █ p50 to p90   ▓ p90 to p99   ▒ p99 to p99.9   ░ p99.9 to max",
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_lines_fit_and_parts_come_in_order(width):
    first, second, scale, keys = draw_text(BARS, width)
    assert max(len(first), len(second)) <= max(width, 24)
    for line in (first, second):
        cells = line[8:].strip()
        assert "".join(sorted(cells, key="█▓▒░".index)) == cells
        assert set(cells) == set("█▓▒░")
    assert len(second[8:]) > len(first[8:])
    assert scale.endswith(" ms")
    assert keys.split("   ")[-1] == "░ p99.9 to max"


def test_scale_labels_stand_at_their_values():
    bar, scale, _ = draw_text([Bar("x", (1.0, 2.0, 5.0, 10.0, 20.0))], 100)
    for number, character in (("1", "█"), ("2", "▓"), ("5", "▒"), ("10", "░")):
        assert scale.split(" ms")[0].index(f" {number} ") + 1 == bar.index(character), number


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0, 0.0, 0.0), (5.0, 5.0, 5.0, 5.0, 5.0), (1e-3, 1.0, 1e3, 1e5, 1e6)])
def test_extremes(values):
    bar, *_ = draw_text([Bar("1", values)], 80)
    assert set("█▓▒░") <= set(bar)
    ElementTree.fromstring(draw_svg([Bar("1", values)], "t"))


def test_svg():
    root = ElementTree.fromstring(draw_svg(BARS, "a <b> & c"))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts[0] == "a <b> & c"
    assert {"1,000", "20,000", "0.2", "100", "p50 to p90", "p99.9 to max", "events/s"} <= set(texts)
    bars = [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert [rect.find(f"{SVG}title").text for rect in bars] == [
        "1,000: p90 0.7 ms",
        "1,000: p99 1.9 ms",
        "1,000: p99.9 4 ms",
        "1,000: max 9 ms",
        "20,000: p90 8 ms",
        "20,000: p99 40 ms",
        "20,000: p99.9 90 ms",
        "20,000: max 250 ms",
    ]
    for before, after in itertools.pairwise(bars[:4]):
        assert float(before.get("x")) + float(before.get("width")) == pytest.approx(float(after.get("x")), abs=0.2)
    assert all(110 <= float(rect.get("x")) <= 770 for rect in bars)
