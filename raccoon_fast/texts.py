"""Formats words for messages."""

from __future__ import annotations

import re

__all__ = ["UNSAFE", "counted", "one_line", "shown"]

#: C0 and C1 controls, which a terminal interprets; marks that change the text direction; and line breaks.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MOST_WORDS = 200


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 event", "2,000 events".

    Args:
        number: The number, shown with thousands separators.
        noun: The singular.
        plural: The plural; by default `noun` with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def one_line(text: str) -> str:
    """A peer's words for an error or a log: one line of at most 200 printable characters."""
    return "".join(filter(str.isprintable, " ".join(text.split())))[:_MOST_WORDS]


def shown(text: str) -> str:
    r"""Foreign text with escapes for characters that a terminal would interpret: "page\x1b[2J"."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
